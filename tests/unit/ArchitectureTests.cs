using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using Shouldly;
using Sidecar.Agent.Judgement;
using Sidecar.Probes.SockDiag;
using Xunit;

namespace Sidecar.UnitTests;

/// <summary>
/// The two arrows: agent to probes, and nothing out of Judgement. Read from the compiled assemblies, so that every use
/// counts: in signatures, in bodies, in fields, in lambdas.
/// </summary>
public sealed class ArchitectureTests
{
    /// <summary>What the pure part may use. Collections and numbers; no clock, no files, no sockets, no tasks, no P/Invoke.</summary>
    private static readonly HashSet<string> PureNamespaces = new(StringComparer.Ordinal)
    {
        "System",
        "System.Buffers",
        "System.Collections",
        "System.Collections.Frozen",
        "System.Collections.Generic",
        "System.Collections.Immutable",
        "System.Globalization",
        "System.Linq",
        "System.Numerics",
        "System.Text",
        "System.Runtime.CompilerServices",
        "System.Diagnostics.CodeAnalysis",
        "System.Text.Json.Serialization",
    };

    /// <summary>Types of System itself that are clocks, chance or the outside world.</summary>
    private static readonly HashSet<string> Impure = new(StringComparer.Ordinal)
    {
        "System.Environment", "System.TimeProvider", "System.Console", "System.Random", "System.Activator", "System.GC", "System.AppDomain", "System.AppContext",
    };

    private static readonly HashSet<string> Clocks = new(StringComparer.Ordinal)
    {
        "System.DateTime.get_UtcNow", "System.DateTime.get_Now", "System.DateTime.get_Today", "System.DateTimeOffset.get_UtcNow", "System.DateTimeOffset.get_Now",
        "System.Guid.NewGuid",
    };

    [Fact]
    public void Probes_know_nothing_of_the_agent()
    {
        using var probes = Open(typeof(SocketObservation));
        var metadata = probes.GetMetadataReader();
        metadata.AssemblyReferences.Select(handle => metadata.GetString(metadata.GetAssemblyReference(handle).Name))
            .ShouldNotContain("conn-sidecar");
    }

    [Fact]
    public void Judgement_depends_on_nothing_but_itself_and_plain_values()
    {
        using var agent = Open(typeof(Judge));
        Uses(agent, "Sidecar.Agent.Judgement").Where(use => !IsPure(use.Used)).Select(use => $"{use.By} uses {use.Used}").Distinct().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("Sidecar.Agent.Tracking", "Sidecar.Probes.SockDiag.SocketObservation")]
    [InlineData("Sidecar.Agent.Remedies", "System.DateTimeOffset.get_UtcNow")]
    [InlineData("Sidecar.Agent.Tracking", "System.Net.Dns")]
    [InlineData("Sidecar.Agent", "System.Diagnostics.Stopwatch")]
    [InlineData("Sidecar.Agent.Telemetry", "System.IO.File")]
    public void The_check_sees_what_other_parts_use(string from, string used)
    {
        using var agent = Open(typeof(Judge));
        Uses(agent, from).Select(use => use.Used).ShouldContain(used);
        IsPure(used).ShouldBeFalse();
    }

    [Fact]
    public void Judgement_calls_no_native_code()
    {
        using var agent = Open(typeof(Judge));
        var metadata = agent.GetMetadataReader();
        foreach (var type in metadata.TypeDefinitions.Where(handle => IsIn(metadata, handle, "Sidecar.Agent.Judgement")))
        {
            metadata.GetTypeDefinition(type).GetMethods()
                .Any(method => metadata.GetMethodDefinition(method).GetImport().Module is { IsNil: false })
                .ShouldBeFalse(metadata.GetString(metadata.GetTypeDefinition(type).Name));
        }
    }

    private static bool IsPure(string used)
    {
        if (used.StartsWith("Sidecar.Agent.Judgement.", StringComparison.Ordinal) || !used.Contains('.') || used[0] == '<')
        {
            return true;
        }

        if (Clocks.Contains(used) || Impure.Any(type => used == type || used.StartsWith(type + ".", StringComparison.Ordinal)))
        {
            return false;
        }

        // A member is named Namespace.Type.Member, a type Namespace.Type: one of the two prefixes is the namespace.
        var last = used.LastIndexOf('.');
        var first = last > 0 && used[last - 1] == '.' ? last - 1 : last; // ..ctor
        var shorter = used[..first];
        return PureNamespaces.Contains(shorter) || (shorter.LastIndexOf('.') is > 0 and var dot && PureNamespaces.Contains(shorter[..dot]) && char.IsUpper(shorter[dot + 1]) && !IsNamespace(shorter));
    }

    /// <summary>System.IO.File must not pass for the member File of a type System.IO.</summary>
    private static bool IsNamespace(string name) => name is "System.IO" or "System.Net" or "System.Diagnostics" or "System.Threading" or "System.Reflection"
        or "System.Security" or "System.Timers" or "System.Runtime" or "System.Xml" or "System.Data";

    private static PEReader Open(Type type) => new(File.OpenRead(type.Assembly.Location));

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

    /// <summary>Every type and member that the types of a namespace name, wherever they name it.</summary>
    private static List<(string By, string Used)> Uses(PEReader assembly, string from)
    {
        var metadata = assembly.GetMetadataReader();
        var found = new List<(string, string)>();
        foreach (var handle in metadata.TypeDefinitions.Where(handle => IsIn(metadata, handle, from)))
        {
            var type = metadata.GetTypeDefinition(handle);
            var by = metadata.GetString(type.Name);
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
