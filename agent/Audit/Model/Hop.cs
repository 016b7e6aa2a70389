using System.Globalization;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Model;

/// <summary>What becomes of a request when a limit is reached.</summary>
internal enum Ending
{
    /// <summary>The hop answers 504 Gateway Timeout.</summary>
    GatewayTimeout,

    /// <summary>The hop answers 502.</summary>
    BadGateway,

    /// <summary>The hop or the application answers 500.</summary>
    ServerError,

    /// <summary>The connection is closed without an answer; a proxy in front of it makes a 502 of that.</summary>
    Close,
}

/// <summary>Which clock a limit is.</summary>
internal enum LimitKind
{
    /// <summary>How long the hop waits, without a byte, for what is behind it.</summary>
    Wait,

    /// <summary>How long the work itself may take.</summary>
    Work,
}

/// <summary>One time limit of a hop.</summary>
internal sealed record Limit
{
    public required LimitKind Kind { get; init; }

    /// <summary>The setting's name as the program writes it.</summary>
    public required string Setting { get; init; }

    /// <summary>The time; null: there is no limit.</summary>
    public required TimeSpan? Value { get; init; }

    /// <summary>Where it is set; null: the program's default is in force.</summary>
    public required Place? Place { get; init; }

    /// <summary>The line that sets it, with <c>{0}</c> for whole seconds; empty: no line of its program does.</summary>
    public required string Form { get; init; }

    /// <summary>How it is set for its hop alone, where it is not set yet or other hops share the line; null: below the hop's own line, as <see cref="Form"/> says.</summary>
    public OwnLine? Own { get; init; }

    /// <summary>A second clock that runs at the same time in the same hop, and is not the shorter one.</summary>
    public Limit? Beside { get; init; }

    /// <summary>It is not this host's: it is changed only where nothing else helps.</summary>
    public bool IsElsewhere { get; init; }

    /// <summary>Its program asks for it: where it is not set, it is to be.</summary>
    public bool IsAskedFor { get; init; }

    public required Ending Ending { get; init; }

    /// <summary>A line with this time in it, rounded up to whole seconds, at least one.</summary>
    public static string Line(string form, TimeSpan value) => form.Replace("{0}", Math.Max(1, Math.Ceiling(value.TotalSeconds)).ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal);
}

/// <summary>A line that sets a limit for one hop alone.</summary>
/// <param name="Place">The line it is added below, or is an option of.</param>
/// <param name="Setting">The setting's name there.</param>
/// <param name="Form">The line, with <c>{0}</c> for whole seconds.</param>
/// <param name="IsOption">It is an option of the line that is there already.</param>
internal sealed record OwnLine(Place Place, string Setting, string Form, bool IsOption);

/// <summary>A place where a hop accepts connections.</summary>
/// <param name="Address">Address.</param>
/// <param name="Backlog">The length of the accept queue that the program asks for; null: not known.</param>
/// <param name="BacklogPlace">Where it is set; null: the program's default.</param>
/// <param name="BacklogForm">The setting that sets it, with <c>{0}</c> for the number.</param>
/// <param name="At">Where it is to be set as long as it is not; null: below the hop's own line.</param>
internal sealed record Listener(Address Address, int? Backlog, Place? BacklogPlace, string BacklogForm, Place? At = null);

/// <summary>Where a hop sends requests to.</summary>
/// <param name="Address">Address.</param>
/// <param name="Place">Where that is set.</param>
internal sealed record Target(Address Address, Place Place);

/// <summary>One stage that a request passes on its way from client to database.</summary>
internal sealed record Hop
{
    /// <summary><c>haproxy</c>, <c>nginx</c>, <c>apache</c>, <c>squid</c>, <c>uwsgi</c>, <c>gunicorn</c>, <c>mod_wsgi</c>, <c>postgresql</c>, <c>balancer</c>.</summary>
    public required string Program { get; init; }

    /// <summary>Which of the program's parts, such as <c>backend app</c>.</summary>
    public required string Name { get; init; }

    /// <summary>Where that part begins: what is missing is to be added here.</summary>
    public required Place Place { get; init; }

    public IReadOnlyList<Listener> Listens { get; init; } = [];

    public IReadOnlyList<Target> Targets { get; init; } = [];

    /// <summary>Its limits, the outermost first.</summary>
    public IReadOnlyList<Limit> Limits { get; init; } = [];

    /// <summary>How long an idle connection of a client is kept; null: not known or not HTTP.</summary>
    public Limit? KeepAlive { get; init; }

    /// <summary>True where a connection that closes behind it becomes an answer 502 to the client.</summary>
    public bool AnswersForOthers { get; init; }

    /// <summary>Requests that it works on at once; null where that is not its bound.</summary>
    public int? Slots { get; init; }

    /// <summary>True for the program that does the work: behind it there are only databases.</summary>
    public bool IsWorker { get; init; }

    /// <summary>Paths that it answers itself without a worker; null: it is not known.</summary>
    public Func<string, bool>? AnswersItself { get; init; }

    public string Title => Name.Length == 0 ? Program : $"{Program} ({Name})";
}
