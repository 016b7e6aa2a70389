using System.Globalization;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Telemetry;

/// <summary>The server's side of a connection, for people and programs.</summary>
internal static class SessionText
{
    /// <summary>An answer that left the server may be on its way for this long.</summary>
    private static readonly TimeSpan OnItsWay = TimeSpan.FromSeconds(2);

    /// <summary>The server's side of a connection, as of now; null where it is not known for certain.</summary>
    /// <param name="connection">The connection.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="words">What it adds to the reason of the verdict; null: nothing.</param>
    public static SessionStatus? Of(World world, TrackedConnection connection, TimeSpan now, out string? words)
    {
        words = null;
        if (world.FindSession(connection, now, out var view) is not { State: { } state } session)
        {
            return null;
        }

        var since = now - view!.Taken;
        var active = session.IsActive;
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
                // Whoever is heard later would have sent its answer again: then none is due. Else it may come yet, or never.
                { Resting: { } resting } when session.StateAge > OnItsWay => connection.LastHeard > now - resting + OnItsWay
                    ? $"back-end {pid} has been done for {Explanation.Text(resting)}, and is heard: no answer of it is missing"
                    : $"back-end {pid} has been done for {Explanation.Text(resting)}: its answer has not arrived",
                _ => null,
            };
        }
        else if (!active && status.Transaction is { } transaction)
        {
            words = $"back-end {pid} has a transaction open for {Explanation.Text(transaction)}";
        }

        return status;
    }
}
