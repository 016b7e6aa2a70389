using System.Text.Json.Serialization;

namespace Sidecar.Agent.Doctor;

/// <summary>Whether something works here.</summary>
internal enum FindingState
{
    Works,
    DoesNot,

    /// <summary>It could not be tried.</summary>
    NotTried,
}

/// <summary>One thing that was tried.</summary>
/// <param name="Layer">What was tried.</param>
/// <param name="State">What came of it.</param>
/// <param name="IsNeeded">A remedy that the configuration asks for depends on it.</param>
/// <param name="Detail">How it was proved, or what is missing and what follows from that.</param>
internal sealed record Finding(string Layer, FindingState State, bool IsNeeded, string Detail)
{
    /// <summary>Only who acts needs it: <c>mode = observe</c> loses nothing without it.</summary>
    public bool IsForActing { get; init; }

    /// <summary>True where a configured remedy is not possible.</summary>
    public bool IsInTheWay => IsNeeded && State != FindingState.Works;
}

/// <summary>What <c>doctor --json</c> prints; the names are fixed for programs.</summary>
internal sealed record DoctorDocument
{
    /// <summary>All remedies that the configuration asks for are possible; the exit code is 0.</summary>
    public required bool Possible { get; init; }
    public required IReadOnlyList<FindingView> Findings { get; init; }

    /// <summary>Lines of advice by upstream.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyList<string>> Advice { get; init; }
}

/// <summary>One finding in <see cref="DoctorDocument"/>.</summary>
internal sealed record FindingView
{
    public required string Layer { get; init; }

    /// <summary><c>works</c>, <c>does-not</c>, <c>not-tried</c>.</summary>
    public required string State { get; init; }
    public required bool Needed { get; init; }
    public required string Detail { get; init; }

    public static FindingView From(Finding finding) => new()
    {
        Layer = finding.Layer,
        State = finding.State switch
        {
            FindingState.Works => "works",
            FindingState.DoesNot => "does-not",
            _ => "not-tried",
        },
        Needed = finding.IsNeeded,
        Detail = finding.Detail,
    };
}

/// <summary>JSON of <c>doctor</c>, without reflection.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(DoctorDocument))]
internal sealed partial class DoctorJson : JsonSerializerContext;
