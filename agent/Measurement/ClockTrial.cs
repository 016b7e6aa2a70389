using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// An occasion more for "keepalives do not count here": new connections, some kept alive by keepalives and one by data, all of the
/// same age, for longer than the path remembers. One occasion alone may have been a flush, a lost packet or a server's own limit.
/// </summary>
internal static class ClockTrial
{
    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan EndPatience = TimeSpan.FromSeconds(20);

    /// <summary>How long it takes, but for its tests.</summary>
    /// <param name="upper">Shortest gap that was lost.</param>
    public static TimeSpan Length(TimeSpan upper) => (upper * 1.25) + TimeSpan.FromSeconds(1);

    /// <summary>Runs it.</summary>
    /// <param name="opener">Opens the connections; all of them are closed in the end.</param>
    /// <param name="lower">Longest gap known to be survived.</param>
    /// <param name="upper">Shortest gap that was lost.</param>
    /// <param name="keepaliveOnly">Connections to be kept alive by keepalives, at least one; one more is opened for data.</param>
    /// <param name="protocol">What the server speaks.</param>
    /// <param name="cancellation">Ends it without a result.</param>
    /// <returns>True: data counts, and keepalives do not. False: keepalives count. Null: something else has happened.</returns>
    /// <exception cref="MeasurementException">A connection could not be had.</exception>
    public static async Task<bool?> RunAsync(
        LadderOpener opener, TimeSpan lower, TimeSpan upper, int keepaliveOnly, UpstreamProtocol protocol, CancellationToken cancellation)
    {
        using var comparison = new Comparison(opener.Clock);
        try
        {
            for (var i = 0; i < keepaliveOnly; i++)
            {
                comparison.KeepAlive(await opener.OpenFirstAsync(cancellation));
            }

            comparison.Exchange(await opener.OpenFirstAsync(cancellation));
            for (var start = opener.Clock.GetTimestamp(); opener.Clock.GetElapsedTime(start) < Length(upper);)
            {
                comparison.Refresh(lower, cancellation);
                await Task.Delay(Step, opener.Clock, cancellation);
            }

            await comparison.RestAsync();
            using var patience = new CancellationTokenSource(EndPatience, opener.Clock);
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation, patience.Token);
            await comparison.TestAsync(upper, limit.Token);
            return comparison switch
            {
                { KeepaliveRefreshes: true } => false,
                { KeepaliveRefreshes: false, PayloadRefreshes: true } when comparison.Losses.All(loss => IsBetween(loss, protocol)) => true,
                _ => null,
            };
        }
        finally
        {
            await comparison.CloseAsync(opener);
        }
    }

    /// <summary>
    /// Whether a loss is that of something between: silence, or an end that a PostgreSQL server would have announced. What an
    /// unknown server closes by its own clock looks the same as a balancer's, and a RST answers keepalives as well as data.
    /// </summary>
    public static bool IsBetween(LossKind loss, UpstreamProtocol protocol) =>
        loss == LossKind.Silent || (loss == LossKind.PeerClosed && protocol == UpstreamProtocol.PostgreSql);
}
