namespace Sidecar.Agent.Telemetry;

/// <summary>
/// The journal's MESSAGE_ID of each kind of event, listed in docs/journal.md. Append-only: operators search and
/// alert by them, so an id never changes its meaning.
/// </summary>
internal static class MessageIds
{
    /// <summary>A remedy was carried out, or its outcome became known.</summary>
    public const string Incident = "6880a2b1fd7a4b3d98e2d8425696416b";

    /// <summary>A guardrail (or observe mode) withheld a remedy.</summary>
    public const string Withheld = "8a2b5b5a834741fbae5e5b0952ef0ca1";

    /// <summary>The first scan is done; the agent works.</summary>
    public const string Started = "b514fe0a04c8440abeb51eb68795905c";

    /// <summary>The agent ends.</summary>
    public const string Stopping = "3c5f794ec74f481e89d31e88c96868ca";

    /// <summary>A changed configuration is in force.</summary>
    public const string Reloaded = "7cfb0062207a4dbba576d10a26ad102c";

    /// <summary>A changed configuration was refused; the old one stays in force.</summary>
    public const string ReloadRefused = "5255074cbd67451b8f00e599f3ff446c";

    /// <summary>Something that the agent cannot do here (a missing capability, a kernel option, a directory).</summary>
    public const string Limitation = "8cf41c38fa2b4097bab70aae02fc4d9c";

    /// <summary>Fresh connections to an upstream began to fail.</summary>
    public const string OutageBegan = "e9ee347a60d8475fbd23c11bf4bcefd1";

    /// <summary>Fresh connections to an upstream succeed again.</summary>
    public const string OutageEnded = "7c320deec37847f7be1009446a06ef34";

    /// <summary>The budget of a worker group is used up; the agent terminates nobody there for the time being.</summary>
    public const string StoodDown = "9caedd53294e46a088483bb953bf68a7";

    /// <summary>The one of a message of <see cref="Log"/> by its event id, or null where it has none.</summary>
    public static string? Of(int eventId) => eventId switch
    {
        1 => Started,
        2 => Stopping,
        3 => Reloaded,
        4 => ReloadRefused,
        5 => Limitation,
        6 => OutageBegan,
        7 => OutageEnded,
        8 => StoodDown,
        _ => null,
    };

    /// <summary>All of them with their names, for the documentation's test.</summary>
    public static readonly IReadOnlyDictionary<string, string> All = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        [nameof(Incident)] = Incident,
        [nameof(Withheld)] = Withheld,
        [nameof(Started)] = Started,
        [nameof(Stopping)] = Stopping,
        [nameof(Reloaded)] = Reloaded,
        [nameof(ReloadRefused)] = ReloadRefused,
        [nameof(Limitation)] = Limitation,
        [nameof(OutageBegan)] = OutageBegan,
        [nameof(OutageEnded)] = OutageEnded,
        [nameof(StoodDown)] = StoodDown,
    };
}
