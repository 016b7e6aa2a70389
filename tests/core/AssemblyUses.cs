using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;

namespace Sidecar.CoreTests;

/// <summary>
/// What the types of a compiled assembly use: in signatures, in bodies, in fields, in lambdas. Linked into tests/unit.
/// </summary>
internal static class AssemblyUses
{
    /// <summary>Assemblies that it references, those of the framework left out; in order.</summary>
    public static IEnumerable<string> References(PEReader assembly)
    {
        var metadata = assembly.GetMetadataReader();
        return metadata.AssemblyReferences.Select(handle => metadata.GetString(metadata.GetAssemblyReference(handle).Name))
            .Where(name => !name.StartsWith("System.", StringComparison.Ordinal) && !name.StartsWith("Microsoft.", StringComparison.Ordinal))
            .Order(StringComparer.Ordinal);
    }

    public static PEReader Open(Type type) => new(File.OpenRead(type.Assembly.Location));

    private static bool IsIn(MetadataReader metadata, TypeDefinitionHandle handle, string prefix)
    {
        var type = metadata.GetTypeDefinition(handle);
        while (!type.GetDeclaringType().IsNil)
        {
            type = metadata.GetTypeDefinition(type.GetDeclaringType());
        }

        var name = metadata.GetString(type.Namespace);
        return name == prefix || name.StartsWith(prefix + ".", StringComparison.Ordinal);
    }

    /// <summary>Every type and member that the types of a namespace name, wherever they name it, with the namespace and name of the type that does.</summary>
    public static List<(string By, string Used)> Uses(PEReader assembly, string from)
    {
        var metadata = assembly.GetMetadataReader();
        var found = new List<(string, string)>();
        foreach (var handle in metadata.TypeDefinitions.Where(handle => IsIn(metadata, handle, from)))
        {
            var type = metadata.GetTypeDefinition(handle);
            var by = Name(metadata, handle);
            void Add(EntityHandle used)
            {
                foreach (var name in Names(metadata, used))
                {
                    found.Add((by, name));
                }
            }

            Add(type.BaseType);
            foreach (var implemented in type.GetInterfaceImplementations())
            {
                Add(metadata.GetInterfaceImplementation(implemented).Interface);
            }

            foreach (var field in type.GetFields())
            {
                Add(metadata.GetFieldDefinition(field).DecodeSignature(new Collector(Add), null));
            }

            foreach (var methodHandle in type.GetMethods())
            {
                var method = metadata.GetMethodDefinition(methodHandle);
                method.DecodeSignature(new Collector(Add), null);
                if (method.RelativeVirtualAddress == 0)
                {
                    continue;
                }

                var body = assembly.GetMethodBody(method.RelativeVirtualAddress);
                if (!body.LocalSignature.IsNil)
                {
                    metadata.GetStandaloneSignature(body.LocalSignature).DecodeLocalSignature(new Collector(Add), null);
                }

                foreach (var token in Tokens(body.GetILReader()))
                {
                    Add(token);
                }
            }
        }

        return found;
    }

    /// <summary>The metadata tokens in a body of IL (ECMA-335, III).</summary>
    private static List<EntityHandle> Tokens(BlobReader il)
    {
        var tokens = new List<EntityHandle>();
        while (il.RemainingBytes > 0)
        {
            int code = il.ReadByte();
            if (code == 0xfe)
            {
                code = 0xfe00 | il.ReadByte();
            }

            var operand = Array.Find(OpCodes, op => (ushort)op.Value == code).OperandType;
            switch (operand)
            {
                case System.Reflection.Emit.OperandType.InlineNone:
                    break;
                case System.Reflection.Emit.OperandType.ShortInlineBrTarget or System.Reflection.Emit.OperandType.ShortInlineI or System.Reflection.Emit.OperandType.ShortInlineVar:
                    il.Offset++;
                    break;
                case System.Reflection.Emit.OperandType.InlineVar:
                    il.Offset += 2;
                    break;
                case System.Reflection.Emit.OperandType.InlineI8 or System.Reflection.Emit.OperandType.InlineR:
                    il.Offset += 8;
                    break;
                case System.Reflection.Emit.OperandType.InlineSwitch:
                    var targets = il.ReadInt32(); // before Offset is read to be added to
                    il.Offset += 4 * targets;
                    break;
                case System.Reflection.Emit.OperandType.InlineField or System.Reflection.Emit.OperandType.InlineMethod
                    or System.Reflection.Emit.OperandType.InlineTok or System.Reflection.Emit.OperandType.InlineType:
                    tokens.Add((EntityHandle)System.Reflection.Metadata.Ecma335.MetadataTokens.Handle(il.ReadInt32()));
                    break;
                default:
                    il.Offset += 4;
                    break;
            }
        }

        return tokens;
    }

    private static readonly System.Reflection.Emit.OpCode[] OpCodes =
        [.. typeof(System.Reflection.Emit.OpCodes).GetFields().Select(field => (System.Reflection.Emit.OpCode)field.GetValue(null)!)];

    /// <summary>Full names behind a token: of the type, and of the member where there is one.</summary>
    private static List<string> Names(MetadataReader metadata, EntityHandle handle)
    {
        if (handle.IsNil)
        {
            return [];
        }

        var nested = new List<string>();
        void Add(EntityHandle used) => nested.AddRange(Names(metadata, used));
        switch (handle.Kind)
        {
            case HandleKind.TypeReference:
                nested.Add(Name(metadata, (TypeReferenceHandle)handle));
                break;
            case HandleKind.TypeDefinition:
                nested.Add(Name(metadata, (TypeDefinitionHandle)handle));
                break;
            case HandleKind.TypeSpecification:
                metadata.GetTypeSpecification((TypeSpecificationHandle)handle).DecodeSignature(new Collector(Add), null);
                break;
            case HandleKind.MethodSpecification:
                var specification = metadata.GetMethodSpecification((MethodSpecificationHandle)handle);
                specification.DecodeSignature(new Collector(Add), null);
                Add(specification.Method);
                break;
            case HandleKind.MemberReference:
                var member = metadata.GetMemberReference((MemberReferenceHandle)handle);
                if (metadata.GetString(member.Name) == "get_CurrentManagedThreadId")
                {
                    break; // the compiler's own, in every iterator
                }

                foreach (var parent in Names(metadata, member.Parent))
                {
                    nested.Add(parent);
                    nested.Add($"{parent}.{metadata.GetString(member.Name)}");
                }

                break;
            case HandleKind.MethodDefinition:
                Add(metadata.GetMethodDefinition((MethodDefinitionHandle)handle).GetDeclaringType());
                break;
            case HandleKind.FieldDefinition:
                Add(metadata.GetFieldDefinition((FieldDefinitionHandle)handle).GetDeclaringType());
                break;
        }

        return nested;
    }

    private static string Name(MetadataReader metadata, TypeReferenceHandle handle)
    {
        var type = metadata.GetTypeReference(handle);
        var name = metadata.GetString(type.Name);
        return type.ResolutionScope.Kind == HandleKind.TypeReference
            ? Name(metadata, (TypeReferenceHandle)type.ResolutionScope)
            : $"{metadata.GetString(type.Namespace)}.{name}";
    }

    private static string Name(MetadataReader metadata, TypeDefinitionHandle handle)
    {
        var type = metadata.GetTypeDefinition(handle);
        if (!type.GetDeclaringType().IsNil)
        {
            return Name(metadata, type.GetDeclaringType());
        }

        // The compiler's own helpers have no namespace.
        var name = metadata.GetString(type.Namespace);
        return name.Length == 0 ? metadata.GetString(type.Name).Replace('.', '_') : $"{name}.{metadata.GetString(type.Name)}";
    }

    /// <summary>Hands on every type that a signature names.</summary>
    private sealed class Collector(Action<EntityHandle> add) : ISignatureTypeProvider<EntityHandle, object?>
    {
        public EntityHandle GetTypeFromDefinition(MetadataReader reader, TypeDefinitionHandle handle, byte rawTypeKind)
        {
            add(handle);
            return default;
        }

        public EntityHandle GetTypeFromReference(MetadataReader reader, TypeReferenceHandle handle, byte rawTypeKind)
        {
            add(handle);
            return default;
        }

        public EntityHandle GetTypeFromSpecification(MetadataReader reader, object? genericContext, TypeSpecificationHandle handle, byte rawTypeKind)
        {
            add(handle);
            return default;
        }

        public EntityHandle GetArrayType(EntityHandle elementType, ArrayShape shape) => default;

        public EntityHandle GetByReferenceType(EntityHandle elementType) => default;

        public EntityHandle GetFunctionPointerType(MethodSignature<EntityHandle> signature) => default;

        public EntityHandle GetGenericInstantiation(EntityHandle genericType, System.Collections.Immutable.ImmutableArray<EntityHandle> typeArguments) => default;

        public EntityHandle GetGenericMethodParameter(object? genericContext, int index) => default;

        public EntityHandle GetGenericTypeParameter(object? genericContext, int index) => default;

        public EntityHandle GetModifiedType(EntityHandle modifier, EntityHandle unmodifiedType, bool isRequired) => default;

        public EntityHandle GetPinnedType(EntityHandle elementType) => default;

        public EntityHandle GetPointerType(EntityHandle elementType) => default;

        public EntityHandle GetPrimitiveType(PrimitiveTypeCode typeCode) => default;

        public EntityHandle GetSZArrayType(EntityHandle elementType) => default;
    }
}
