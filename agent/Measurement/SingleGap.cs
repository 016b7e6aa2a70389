using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>One connection, one gap: whether the path remembers for so long.</summary>
internal static class SingleGap
{
    private static readonly TimeSpan ScanInterval = TimeSpan.FromSeconds(1);

    /// <summary>Lets a single connection idle for one gap.</summary>
    /// <returns>What became of it; null where the path was down, or the connection ended for a reason of its own.</returns>
    /// <exception cref="MeasurementException">No connection could be had.</exception>
    public static async Task<GapObservation?> TryAsync(MeasurementTarget target, TimeSpan gap, CancellationToken cancellation)
    {
        var opener = new LadderOpener(target, isGuest: true);
        try
        {
            await using var connection = await opener.OpenFirstAsync(cancellation);
            await connection.SettleAsync(cancellation);
            for (var left = gap - connection.Age; left > TimeSpan.Zero; left = gap - connection.Age)
            {
                await Task.Delay(left < ScanInterval ? left : ScanInterval, opener.Clock, cancellation);
                if (connection.Scan(out _) == IdleScan.Ended)
                {
                    break;
                }
            }

            var test = await connection.TestAsync(cancellation);
            if (test is { Lost: null, Disturbed: false, Survived: { } survived })
            {
                return new GapObservation(survived, GapOutcome.Survived, opener.Clock.GetUtcNow(), EvidenceSource.Ladder, GapObservation.LadderWeight);
            }

            connection.Socket.AbortOnClose();
            return test.Lost is { } lost && (test.Loss != LossKind.PeerClosed || connection.HasPayload) && await opener.PathIsUpAsync(cancellation)
                ? new GapObservation(lost, GapOutcome.Lost, opener.Clock.GetUtcNow(), EvidenceSource.Ladder, GapObservation.LadderWeight)
                : null;
        }
        finally
        {
            await opener.LeaveNothingAsync(gently: !cancellation.IsCancellationRequested);
        }
    }
}
