using System.Net;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Model;

/// <summary>A server line of HAProxy, with what of its backend bears on it.</summary>
internal sealed record HaproxyServer
{
    public required string Name { get; init; }
    public required Place Place { get; init; }
    public required Address? Address { get; init; }

    /// <summary><c>server</c> or <c>server-template</c>.</summary>
    public required string Keyword { get; init; }

    /// <summary>How many servers the line makes.</summary>
    public required int Count { get; init; }
    public required int? MaxConnections { get; init; }
    public required bool IsBackup { get; init; }

    /// <summary>Checked at its own address, so that a check takes the same way as a request.</summary>
    public required bool IsCheckedInPlace { get; init; }

    /// <summary>Time between two checks.</summary>
    public required TimeSpan CheckInterval { get; init; }
}

/// <summary>A section of HAProxy: a backend or listen with servers, or a frontend with its timeout alone.</summary>
internal sealed record HaproxyBackend
{
    public required string Name { get; init; }
    public required Place Place { get; init; }
    public required bool IsHttp { get; init; }
    public required IReadOnlyList<HaproxyServer> Servers { get; init; }
    public required bool AllBackups { get; init; }

    /// <summary>Its own line <c>no option allbackups</c>, or null.</summary>
    public Place? NoAllBackups { get; init; }

    /// <summary>The path that HTTP checks ask for, and where that is set; null: checks only connect.</summary>
    public required (string Path, Place Place)? HttpCheck { get; init; }

    /// <summary>timeout connect; null: none is set.</summary>
    public required (TimeSpan Value, Place Place)? ConnectTimeout { get; init; }

    /// <summary>timeout queue; null: timeout connect holds for it too.</summary>
    public required (TimeSpan Value, Place Place)? QueueTimeout { get; init; }

    /// <summary>Timeouts that HAProxy asks for and that are not set.</summary>
    public required IReadOnlyList<Limit> MissingTimeouts { get; init; }
}

/// <summary>What one program's configuration says.</summary>
internal sealed record ProgramFacts
{
    /// <summary>Process id of its master; null: read from files alone.</summary>
    public int? Pid { get; init; }

    public required string Program { get; init; }

    /// <summary>The network namespace it stands in; 0: not known, or the same for all.</summary>
    public ulong Namespace { get; init; }

    public IReadOnlyList<Hop> Hops { get; init; } = [];

    public IReadOnlyList<HaproxyBackend> Backends { get; init; } = [];

    /// <summary>Files that were read.</summary>
    public IReadOnlyList<string> Files { get; init; } = [];

    public IReadOnlyList<Note> Notes { get; init; } = [];
}

/// <summary>A kernel setting.</summary>
/// <param name="Value">The value in force, or null.</param>
/// <param name="Place">The line of sysctl.d that sets it, else the file below /proc/sys.</param>
internal readonly record struct Sysctl(long? Value, Place Place);

/// <summary>The kernel settings of one network namespace.</summary>
internal sealed record Sysctls
{
    public required ulong Namespace { get; init; }

    /// <summary>By name, such as <c>net.core.somaxconn</c>.</summary>
    public required IReadOnlyDictionary<string, Sysctl> Values { get; init; }
}

/// <summary>A listening socket as the kernel has it.</summary>
/// <param name="Namespace">Its network namespace.</param>
/// <param name="Address">Where it listens.</param>
/// <param name="Limit">The accept queue's limit that really holds.</param>
/// <param name="Waiting">Connections that wait in it.</param>
/// <param name="Owner">Who holds it, such as <c>pid 12 (python3)</c>; null: nobody was found.</param>
/// <param name="IsKnown">The owner is a program whose configuration was read.</param>
internal sealed record LiveListener(ulong Namespace, Address Address, long Limit, long Waiting, string? Owner, bool IsKnown);

/// <summary>A process whose children ended and were not reaped.</summary>
/// <param name="Parent">The process, such as <c>pid 12 (python3)</c>.</param>
/// <param name="Zombies">How many of them were there twice, a while apart.</param>
internal sealed record UnreapedChildren(string Parent, int Zombies);

/// <summary>What came of connecting to one address of a name.</summary>
internal enum AddressState
{
    Alive,

    /// <summary>Some attempts succeeded and some did not.</summary>
    Flapping,

    Dead,
}

/// <summary>One address of a name.</summary>
internal sealed record CheckedAddress(string Address, AddressState State, int Attempts, int Connected, string? Detail);

/// <summary>A name with the addresses that it has.</summary>
/// <param name="Name">Host and port.</param>
/// <param name="Source">Where the name comes from.</param>
/// <param name="Addresses">All its addresses.</param>
/// <param name="Problem">Why there are none; null otherwise.</param>
internal sealed record CheckedName(string Name, string Source, IReadOnlyList<CheckedAddress> Addresses, string? Problem);

/// <summary>An upstream of the agent's own configuration, as far as findings need it.</summary>
internal sealed record WatchedUpstream
{
    public required string Name { get; init; }

    /// <summary>The section in the agent's configuration.</summary>
    public required Place Place { get; init; }

    /// <summary>The path's idle timeout, declared or measured; null: not known, or the path forgets nothing.</summary>
    public TimeSpan? IdleTimeout { get; init; }

    /// <summary>The idle time after which a keepalive keeps this path; null where its idle timeout is not known.</summary>
    public TimeSpan? KeepaliveIdle { get; init; }

    /// <summary>Whether the agent arms keepalives there (<c>keepalive = on</c> and <c>mode = protect</c>).</summary>
    public bool IsArmed { get; init; }

    /// <summary>Where its server's settings stand; null: it has none that can be asked for.</summary>
    public Place? ServerPlace { get; init; }

    /// <summary>Advice about the server's settings.</summary>
    public IReadOnlyList<string> Advice { get; init; } = [];
}

/// <summary>Everything that findings are drawn from. Plain values; nothing here is read again.</summary>
internal sealed record AuditedStack
{
    public IReadOnlyList<ProgramFacts> Programs { get; init; } = [];

    /// <summary>Stages in front of the programs, such as a balancer that stands elsewhere.</summary>
    public IReadOnlyList<Hop> Front { get; init; } = [];

    /// <summary>Stages behind them: the databases.</summary>
    public IReadOnlyList<Hop> Databases { get; init; } = [];

    public IReadOnlyList<Sysctls> Sysctls { get; init; } = [];

    public IReadOnlyList<LiveListener> Listeners { get; init; } = [];

    public IReadOnlyList<UnreapedChildren> Unreaped { get; init; } = [];

    public IReadOnlyList<CheckedName> Names { get; init; } = [];

    public IReadOnlyList<WatchedUpstream> Upstreams { get; init; } = [];

    /// <summary>Addresses of this host; null: not known.</summary>
    public IReadOnlySet<IPAddress>? LocalAddresses { get; init; }

    /// <summary>How long a request may take that is to be answered; null: nobody said.</summary>
    public TimeSpan? LongestRequest { get; init; }

    /// <summary>What the user has named and cannot be read.</summary>
    public IReadOnlyList<Note> Unread { get; init; } = [];

    public IReadOnlyList<Note> Notes { get; init; } = [];
}
