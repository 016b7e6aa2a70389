namespace Sidecar.Agent.Audit.Reading;

/// <summary>Where something stands.</summary>
/// <param name="File">Path as the program itself would name it, or another source such as <c>pid 12 (gunicorn)</c>.</param>
/// <param name="Line">Line, from 1; 0 where the whole of it is meant.</param>
internal sealed record Place(string File, int Line)
{
    public override string ToString() => Line > 0 ? $"{File}:{Line}" : File;
}

/// <summary>Something that could not be read, or is not followed; never with the text itself, which may hold a secret.</summary>
/// <param name="Place">Where it stands.</param>
/// <param name="Text">What it is.</param>
internal sealed record Note(Place Place, string Text)
{
    public override string ToString() => $"{Place}: {Text}";
}

/// <summary>
/// One directive, option or section of whatever program: its name, its words and what stands inside it. All readers give
/// this form; what a name means, the programs' own files know.
/// </summary>
internal sealed record Directive(string Name, IReadOnlyList<string> Arguments, Place Place)
{
    /// <summary>What stands inside a section or block; empty for a plain directive.</summary>
    public List<Directive> Children { get; } = [];

    /// <summary>True where this opened a block, even an empty one.</summary>
    public bool IsBlock { get; init; }

    /// <summary>The first word after the name, or an empty one.</summary>
    public string First => Arguments.Count > 0 ? Arguments[0] : "";

    /// <summary>Names are compared as programs do that ignore case: Apache does, and no other has two that differ by it.</summary>
    public bool Is(string name) => string.Equals(Name, name, StringComparison.OrdinalIgnoreCase);

    /// <summary>The last child of that name, which is the one in force for a value that is set twice.</summary>
    public Directive? Last(string name) => Children.FindLast(child => child.Is(name));

    public IEnumerable<Directive> All(string name) => Children.Where(child => child.Is(name));
}
