using System.Net;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.CoreTests.Remedies;

/// <summary>What the server of <see cref="Bench"/> says of its sessions.</summary>
internal static class TestServer
{
    internal static readonly TcpEndPoint Address = TcpEndPoint.From(IPAddress.Parse("10.2.0.2"), 5432);

    /// <summary>The session of the bench's socket with this number.</summary>
    /// <param name="number">Which.</param>
    /// <param name="state">As pg_stat_activity has it.</param>
    /// <param name="transaction">How old its transaction is; null: it is in none.</param>
    internal static ServerSession Session(int number, string? state = "idle", TimeSpan? transaction = null) => new(
        1000 + number, DateTime.UnixEpoch, TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 40_000 + number), state, "app", "web", TimeSpan.FromHours(5), null, null, transaction);

    internal static ServerView View(TimeSpan taken, ServerSession session, bool isOwnEndSeen = true) => View(taken, [session], isOwnEndSeen);

    internal static ServerView View(TimeSpan taken, IReadOnlyList<ServerSession> sessions, bool isOwnEndSeen = true) => new(
        new ServerScan
        {
            Version = "15.0",
            Server = Address,
            Self = TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 39_999),
            IsInRecovery = false,
            MaySeeAll = true,
            MaySignal = true,
            ConnectionLimit = 97,
            Connections = 4,
            Sessions = sessions,
            IsComplete = true,
        },
        taken,
        isOwnEndSeen);
}
