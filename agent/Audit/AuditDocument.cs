using System.Text.Json.Serialization;
using Sidecar.Agent.Audit.Findings;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Audit;

/// <summary>What was found about a stack.</summary>
/// <param name="Stack">What it was drawn from.</param>
/// <param name="Chains">The ways of a request.</param>
/// <param name="Findings">The worst first.</param>
/// <param name="Plan">All changes, a line once: with them together no finding that has changes is found again.</param>
internal sealed record AuditReport(AuditedStack Stack, IReadOnlyList<Chain> Chains, IReadOnlyList<AuditFinding> Findings, IReadOnlyList<Change> Plan)
{
    public static AuditReport Of(AuditedStack stack)
    {
        var graph = new HopGraph(stack);
        var chains = Chain.Build(stack, graph);
        var limits = new LimitPlan(stack, chains);
        var findings = Auditor.Examine(stack, graph, chains, limits);
        return new AuditReport(stack, chains, findings,
            [.. findings.SelectMany(finding => finding.Changes).Concat(limits.All).Distinct().OrderBy(change => change.Place.File, StringComparer.Ordinal).ThenBy(change => change.Place.Line)]);
    }

    /// <summary>All notes, each once.</summary>
    public IReadOnlyList<Note> Notes => [.. Stack.Programs.SelectMany(program => program.Notes).Concat(Stack.Notes).Distinct()];

    /// <summary>All files that were read.</summary>
    public IReadOnlyList<string> Files => [.. Stack.Programs.SelectMany(program => program.Files).Distinct(StringComparer.Ordinal)];
}

/// <summary>What <c>audit --json</c> prints; the names are fixed for programs.</summary>
internal sealed record AuditDocument
{
    /// <summary>The worst first; empty: exit code 0.</summary>
    public required IReadOnlyList<FindingDocument> Findings { get; init; }

    /// <summary>All changes, each line once.</summary>
    public required IReadOnlyList<ChangeDocument> Plan { get; init; }
    public required IReadOnlyList<ChainDocument> Chains { get; init; }
    public required IReadOnlyList<NameDocument> Names { get; init; }
    public required IReadOnlyList<ListenerDocument> Listeners { get; init; }
    public required IReadOnlyList<string> Files { get; init; }

    /// <summary>What could not be read or followed.</summary>
    public required IReadOnlyList<NoteDocument> Notes { get; init; }

    public static AuditDocument From(AuditReport report) => new()
    {
        Findings = [.. report.Findings.Select(FindingDocument.From)],
        Plan = [.. report.Plan.Select(ChangeDocument.From)],
        Chains = [.. report.Chains.Select(ChainDocument.From)],
        Names = [.. report.Stack.Names.Select(NameDocument.From)],
        Listeners = [.. report.Stack.Listeners.Select(listener => new ListenerDocument
        {
            Address = listener.Address.ToString(),
            Owner = listener.Owner,
            Waiting = listener.Waiting,
            Limit = listener.Limit,
        })],
        Files = report.Files,
        Notes = [.. report.Notes.Select(note => new NoteDocument { File = Printable.Escape(note.Place.File), Line = Line(note.Place), Text = Printable.Escape(note.Text) })],
    };

    internal static int? Line(Place place) => place.Line > 0 ? place.Line : null;

    internal static double? Seconds(TimeSpan? value) => value is { } time ? Math.Round(time.TotalSeconds, 3) : null;
}

/// <summary>One finding.</summary>
internal sealed record FindingDocument
{
    public required string Id { get; init; }

    /// <summary><c>high</c>, <c>medium</c>, <c>low</c>.</summary>
    public required string Severity { get; init; }
    public required string Program { get; init; }
    public required string File { get; init; }
    public required int? Line { get; init; }
    public required string What { get; init; }
    public required string Consequence { get; init; }
    public required IReadOnlyList<ChangeDocument> Changes { get; init; }

    public static FindingDocument From(AuditFinding finding) => new()
    {
        Id = finding.Id,
        Severity = finding.Severity switch
        {
            Findings.Severity.High => "high",
            Findings.Severity.Medium => "medium",
            _ => "low",
        },
        Program = finding.Program,
        File = Printable.Escape(finding.Place.File),
        Line = AuditDocument.Line(finding.Place),
        What = Printable.Escape(finding.What),
        Consequence = Printable.Escape(finding.Consequence),
        Changes = [.. finding.Changes.Select(ChangeDocument.From)],
    };
}

/// <summary>A line to change, or to add below that one.</summary>
internal sealed record ChangeDocument
{
    public required string File { get; init; }
    public required int? Line { get; init; }
    public required string Text { get; init; }
    public required bool Added { get; init; }

    public static ChangeDocument From(Change change) => new()
    {
        File = Printable.Escape(change.Place.File),
        Line = AuditDocument.Line(change.Place),
        Text = change.Text,
        Added = change.IsNew,
    };
}

/// <summary>The way of a request.</summary>
internal sealed record ChainDocument
{
    /// <summary>The outermost first.</summary>
    public required IReadOnlyList<HopDocument> Hops { get; init; }

    /// <summary>What ends a silent request first; null: nothing does.</summary>
    public required FirstDocument? First { get; init; }

    public static ChainDocument From(Chain chain) => new()
    {
        Hops = [.. chain.Hops.Select(hop => new HopDocument
        {
            Program = hop.Program,
            Name = Printable.Escape(hop.Name),
            File = Printable.Escape(hop.Place.File),
            Line = AuditDocument.Line(hop.Place),
            Listens = [.. hop.Listens.Select(listener => listener.Address.ToString())],
            Slots = hop.Slots,
            Limits = [.. hop.Limits.Select(limit => new LimitDocument
            {
                Setting = limit.Setting,
                Seconds = AuditDocument.Seconds(limit.Value),
                File = limit.Place is { } place ? Printable.Escape(place.File) : null,
                Line = limit.Place is { } at ? AuditDocument.Line(at) : null,
            })],
        })],
        First = chain.First is { } first
            ? new FirstDocument { Program = first.Hop.Program, Setting = first.Limit.Setting, Seconds = AuditDocument.Seconds(first.Limit.Value)!.Value, ClientSees = chain.SeenByClient(first.Hop, first.Limit) }
            : null,
    };
}

/// <summary>A stage of a chain.</summary>
internal sealed record HopDocument
{
    public required string Program { get; init; }
    public required string Name { get; init; }
    public required string File { get; init; }
    public required int? Line { get; init; }
    public required IReadOnlyList<string> Listens { get; init; }
    public required int? Slots { get; init; }
    public required IReadOnlyList<LimitDocument> Limits { get; init; }
}

/// <summary>A time limit; <c>seconds</c> null: none; <c>file</c> null: the program's default.</summary>
internal sealed record LimitDocument
{
    public required string Setting { get; init; }
    public required double? Seconds { get; init; }
    public required string? File { get; init; }
    public required int? Line { get; init; }
}

/// <summary>Who gives up first.</summary>
internal sealed record FirstDocument
{
    public required string Program { get; init; }
    public required string Setting { get; init; }
    public required double Seconds { get; init; }
    public required string ClientSees { get; init; }
}

/// <summary>A name whose addresses were tried.</summary>
internal sealed record NameDocument
{
    public required string Name { get; init; }
    public required string Source { get; init; }
    public required string? Problem { get; init; }
    public required IReadOnlyList<AddressDocument> Addresses { get; init; }

    public static NameDocument From(CheckedName name) => new()
    {
        Name = name.Name,
        Source = name.Source,
        Problem = name.Problem,
        Addresses = [.. name.Addresses.Select(address => new AddressDocument
        {
            Address = address.Address,
            State = address.State switch
            {
                AddressState.Alive => "alive",
                AddressState.Flapping => "flapping",
                _ => "dead",
            },
            Attempts = address.Attempts,
            Connected = address.Connected,
            Detail = address.Detail,
        })],
    };
}

/// <summary>One address of a name.</summary>
internal sealed record AddressDocument
{
    public required string Address { get; init; }

    /// <summary><c>alive</c>, <c>flapping</c>, <c>dead</c>.</summary>
    public required string State { get; init; }
    public required int Attempts { get; init; }
    public required int Connected { get; init; }
    public required string? Detail { get; init; }
}

/// <summary>A server's accept queue.</summary>
internal sealed record ListenerDocument
{
    public required string Address { get; init; }
    public required string? Owner { get; init; }
    public required long Waiting { get; init; }
    public required long Limit { get; init; }
}

/// <summary>Something that could not be read.</summary>
internal sealed record NoteDocument
{
    public required string File { get; init; }
    public required int? Line { get; init; }
    public required string Text { get; init; }
}

/// <summary>JSON of <c>audit</c>, without reflection.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(AuditDocument))]
internal sealed partial class AuditJson : JsonSerializerContext;
