using System.Globalization;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Probes.PostgreSql;

namespace Sidecar.Agent.Tracking;

/// <summary>The server's side of a connection, for people and programs.</summary>
/// <param name="State">As pg_stat_activity names it.</param>
/// <param name="Query">Time since the query in progress began; null while none runs.</param>
/// <param name="Transaction">Time since the transaction in progress began; null outside one.</param>
/// <param name="BackendPid">Process id on the server.</param>
/// <param name="Resting">Time since the last query ended; null while one runs.</param>
public sealed record SessionStatus(string State, TimeSpan? Query, TimeSpan? Transaction, int BackendPid, TimeSpan? Resting);

/// <summary>The sessions of all upstreams that have a DSN. Each is looked at in the background; nothing here waits.</summary>
internal sealed class SessionTable : IDisposable
{
    /// <summary>An answer that left the server may be on its way for this long.</summary>
    private static readonly TimeSpan OnItsWay = TimeSpan.FromSeconds(2);

    private readonly Dictionary<string, SessionWatch> _watches;
    private readonly ulong _ownNamespace;
    private readonly OwnerTable _owners;
    private List<string> _told = [];

    public SessionTable(SidecarConfiguration configuration, NamespaceTable namespaces, OwnerTable owners, Func<TimeSpan> clock)
    {
        _ownNamespace = namespaces.Own.Inode;
        _owners = owners;
        _watches = configuration.Upstreams
            .Where(upstream => upstream is { Protocol: UpstreamProtocol.PostgreSql, DsnFile: not null })
            .ToDictionary(upstream => upstream.Name, upstream => new SessionWatch(upstream, clock), StringComparer.Ordinal);
    }

    public SessionWatch? Find(string upstream) => _watches.GetValueOrDefault(upstream);

    /// <summary>What cannot be looked at and why, one line each.</summary>
    public IEnumerable<string> Problems => _watches
        .Where(pair => pair.Value.Problem is not null)
        .Select(pair => $"{pair.Key}: the sessions on the server are not seen, and none can be ended there (release): {pair.Value.Problem}");

    /// <summary>Those of the problems that have not been told yet.</summary>
    public IReadOnlyList<string> NewProblems()
    {
        var now = Problems.ToList();
        var untold = now.Except(_told, StringComparer.Ordinal).ToList();
        _told = now;
        return untold;
    }

    /// <summary>Tells the watches which connections they are about.</summary>
    public void Attend(IReadOnlyCollection<TrackedConnection> connections)
    {
        foreach (var (name, watch) in _watches)
        {
            watch.Attend(connections.Where(connection => connection.Upstream.Name == name));
        }
    }

    /// <summary>The connection, as its back-end is looked for.</summary>
    public SessionClaim Claim(TrackedConnection connection) => SessionClaim.Of(connection, _ownNamespace, _owners.Find(connection.Last.Inode).First?.Identity.Pid);

    /// <summary>The back-end of a connection at the last look; null where it is not known for certain.</summary>
    public ServerSession? FindSession(TrackedConnection connection, TimeSpan now, out ServerView? view)
    {
        view = Find(connection.Upstream.Name)?.ViewAt(now);
        return view is not null && view.Taken > connection.FirstSeen && SessionMatch.Find(view, Claim(connection), out var session, out _) == SessionIdentity.Proven
            ? session
            : null;
    }

    /// <summary>As <see cref="SessionMatch.IsAtRest"/>, by the last view that is fresh enough.</summary>
    public bool? IsAtRest(TrackedConnection connection, TimeSpan now, out string? why)
    {
        why = null;
        return Find(connection.Upstream.Name)?.ViewAt(now) is { } view ? SessionMatch.IsAtRest(view, Claim(connection), connection.LastData, out why) : null;
    }

    /// <summary>The server's side of a connection, as of now; null where it is not known for certain.</summary>
    /// <param name="connection">The connection.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="words">What it adds to the reason of the verdict; null: nothing.</param>
    public SessionStatus? Describe(TrackedConnection connection, TimeSpan now, out string? words)
    {
        words = null;
        if (FindSession(connection, now, out var view) is not { State: { } state } session)
        {
            return null;
        }

        var since = now - view!.Taken;
        var active = state is "active" or "fastpath function call";
        var status = new SessionStatus(
            state, active ? session.QueryAge + since : null, session.TransactionAge + since, session.Pid, active ? null : session.StateAge + since);
        var pid = session.Pid.ToString(CultureInfo.InvariantCulture);

        // What the server said before the data went out is no answer to it.
        var isAboutThis = view.Taken > connection.LastMoved;
        if (connection.Judged.Verdict == Verdict.Waiting && isAboutThis)
        {
            words = status switch
            {
                { Query: { } query } => $"back-end {pid} has run its query for {Explanation.Text(query)}",
                { Resting: { } resting } when session.StateAge > OnItsWay => $"back-end {pid} has been done for {Explanation.Text(resting)}: its answer was lost on the way",
                _ => null,
            };
        }
        else if (!active && status.Transaction is { } transaction)
        {
            words = $"back-end {pid} has a transaction open for {Explanation.Text(transaction)}";
        }

        return status;
    }

    public void Dispose()
    {
        foreach (var watch in _watches.Values)
        {
            watch.Dispose();
        }
    }
}
