using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>What one scan of the server saw, and what this host knows about the way the scan took.</summary>
public sealed class ServerView
{
    /// <summary>A view older than this says nothing about now.</summary>
    public static readonly TimeSpan StaleAfter = TimeSpan.FromSeconds(15);

    private readonly Dictionary<TcpEndPoint, ServerSession?> _byClient = [];

    /// <summary>A view of one scan.</summary>
    /// <param name="scan">As the server answered.</param>
    /// <param name="taken">When it was asked, monotonic.</param>
    /// <param name="isOwnEndSeen">The agent's own session has the same two ends here as the server says: no address translation on the way.</param>
    public ServerView(ServerScan scan, TimeSpan taken, bool isOwnEndSeen)
    {
        Scan = scan;
        Taken = taken;
        IsOwnEndSeen = isOwnEndSeen;
        foreach (var session in scan.Sessions)
        {
            // The same client end twice (on two addresses of the server) means neither.
            _byClient[session.Client] = _byClient.ContainsKey(session.Client) ? null : session;
        }
    }

    public ServerScan Scan { get; }

    public TimeSpan Taken { get; }

    public bool IsOwnEndSeen { get; }

    /// <summary>The one session of that client; <paramref name="isAmbiguous"/> where there are several.</summary>
    public ServerSession? Find(in TcpEndPoint client, out bool isAmbiguous)
    {
        isAmbiguous = _byClient.TryGetValue(client, out var session) && session is null;
        return session;
    }
}

/// <summary>Whether a connection's back-end is known.</summary>
public enum SessionIdentity
{
    /// <summary>It cannot be proven which one it is, or whether there is one.</summary>
    Unknown,

    /// <summary>This one, for certain.</summary>
    Proven,

    /// <summary>For certain there is none any more.</summary>
    Gone,
}

/// <summary>A connection as <see cref="SessionMatch"/> compares it.</summary>
/// <param name="Direction">Which end this host is.</param>
/// <param name="Local">This host's end.</param>
/// <param name="Peer">The other end.</param>
/// <param name="FirstSeen">When the agent first saw it, monotonic: its back-end is at least as old.</param>
/// <param name="IsInOwnNamespace">It lives in the agent's network namespace.</param>
/// <param name="OwnerPid">Process that holds it; null where not known.</param>
public readonly record struct SessionClaim(
    UpstreamDirection Direction, TcpEndPoint Local, TcpEndPoint Peer, TimeSpan FirstSeen, bool IsInOwnNamespace, int? OwnerPid)
{
    /// <summary>The client's end, as the server would see it without address translation.</summary>
    public TcpEndPoint Client => Direction == UpstreamDirection.Outbound ? Local : Peer;

    public static SessionClaim Of(TrackedConnection connection, ulong ownNamespace, int? ownerPid) => new(
        connection.Upstream.Section.Direction, connection.Key.Local, connection.Key.Peer, connection.FirstSeen, connection.NamespaceInode == ownNamespace, ownerPid);
}

/// <summary>
/// Finds the back-end of a connection, and only where it can be proven: an address and a port that look alike may be
/// another host's behind the same translation, or another server's. Pure.
/// </summary>
public static class SessionMatch
{
    /// <summary>The server's clock and ours need not run alike to the millisecond.</summary>
    private static readonly TimeSpan Slack = TimeSpan.FromSeconds(2);

    /// <summary>Finds the back-end.</summary>
    /// <param name="view">What the server said.</param>
    /// <param name="claim">The connection.</param>
    /// <param name="session">The back-end; null unless proven.</param>
    /// <param name="why">What is missing for a proof, in words; null where it is known.</param>
    public static SessionIdentity Find(ServerView view, in SessionClaim claim, out ServerSession? session, out string? why)
    {
        session = null;
        why = WhyNotComparable(view, claim);
        if (why is not null)
        {
            return SessionIdentity.Unknown;
        }

        var found = view.Find(claim.Client, out var ambiguous);
        if (ambiguous)
        {
            why = "several back-ends have this client address and port";
            return SessionIdentity.Unknown;
        }

        if (found is null)
        {
            why = !view.Scan.MaySeeAll ? "the role may not see the sessions of others (pg_monitor)"
                : !view.Scan.IsComplete ? "the list of sessions is not complete"
                : null;
            return why is null ? SessionIdentity.Gone : SessionIdentity.Unknown;
        }

        if (found.State is null)
        {
            why = "the role may not see the state of this session (pg_monitor)";
            return SessionIdentity.Unknown;
        }

        if (found.Age + Slack < view.Taken - claim.FirstSeen)
        {
            why = "the back-end with this client address and port is younger than the connection";
            return SessionIdentity.Unknown;
        }

        if (claim.Direction == UpstreamDirection.Inbound && claim.OwnerPid != found.Pid)
        {
            why = "the connection's owner on this host is not that back-end";
            return SessionIdentity.Unknown;
        }

        session = found;
        return SessionIdentity.Proven;
    }

    /// <summary>
    /// Whether nobody uses the connection: its back-end is idle, outside a transaction, neither waits for notifications nor
    /// holds an advisory lock, and no data has moved since the server was asked. False: it is used. Null: that cannot be proven (<paramref name="why"/> says what is missing), or the
    /// view is older than the last data (no words: the next one may tell).
    /// </summary>
    public static bool? IsAtRest(ServerView view, in SessionClaim claim, TimeSpan lastData, out string? why)
    {
        why = null;
        if (view.Taken <= lastData)
        {
            return null;
        }

        return Find(view, claim, out var session, out why) switch
        {
            SessionIdentity.Proven => session is { State: "idle", TransactionAge: null, HoldsState: false },
            SessionIdentity.Gone => Missing(out why),
            _ => null,
        };

        static bool? Missing(out string? why)
        {
            why = "the server has no such session";
            return null;
        }
    }

    private static string? WhyNotComparable(ServerView view, in SessionClaim claim)
    {
        if (view.Scan.IsInRecovery)
        {
            return "the server is in recovery";
        }

        if (claim.Direction == UpstreamDirection.Inbound)
        {
            return null; // the owner's pid proves it
        }

        if (!claim.IsInOwnNamespace)
        {
            return "the connection lives in another network namespace, whose address translation is not known";
        }

        if (view.Scan.Server != claim.Peer)
        {
            return "the DSN leads to another address than the connection";
        }

        return !view.IsOwnEndSeen || view.Scan.Self?.Address != claim.Local.Address
            ? "the server sees another client address than this host has (source NAT)"
            : null;
    }
}
