using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// Joins the loop's paths with what is kept of them and with ladders in the background: evidence of an earlier run goes
/// into a new path's estimator, news of a ladder into the estimator of its path, and all of it back into the file.
/// Called on the loop's thread; never waits.
/// </summary>
internal sealed class PathLearning(BackgroundMeasurement background, NamespaceTable namespaces)
{
    /// <summary>A path that no connection uses is not measured.</summary>
    private static readonly TimeSpan InUse = TimeSpan.FromSeconds(60);

    /// <summary>Gives a path that comes into use what an earlier run has learnt of it.</summary>
    public void Resume(PathTracker path)
    {
        if (IsMeasured(path) && background.Kept(KeyOf(path)) is { } kept)
        {
            path.Resume(kept, DateTimeOffset.UtcNow);
        }
    }

    /// <summary>Takes the news and offers the paths in use, once per full scan.</summary>
    public void Exchange(IReadOnlyCollection<PathTracker> paths, TimeSpan now)
    {
        while (background.TryTake(out var news))
        {
            if (paths.FirstOrDefault(path => IsMeasured(path) && KeyOf(path) == news.Key) is not { } measured)
            {
                continue;
            }

            if (news.Observation is { } observation)
            {
                measured.Note(observation);
            }
            else
            {
                measured.NotMeasured = news.Problem;
            }

            // That keepalives do not count is proven on two occasions, and that they do by one that they kept alive; all else shows nothing.
            if (news.Report is { } report && (report.Class == PathClass.PayloadOnly || report.KeepaliveRefreshes == true))
            {
                measured.NoteClock(report.Class == PathClass.PayloadOnly ? IdleClock.Data : IdleClock.Segments);
            }
        }

        foreach (var path in paths)
        {
            if (!IsMeasured(path) || now - path.LastUsed > InUse || namespaces.Find(path.Key.NamespaceInode) is not { } network)
            {
                continue;
            }

            if (path.TakeEvidence() is { } evidence)
            {
                background.Keep(KeyOf(path), evidence);
            }

            background.Offer(new PathToMeasure
            {
                Key = KeyOf(path),
                Upstream = path.Upstream.Section,
                Endpoint = path.Key.Destination.ToEndPoint(),
                Network = network.IsOwn ? null : network,
                Estimate = path.Estimate ?? IdleTimeoutEstimate.Unknown,
            });
        }
    }

    private static bool IsMeasured(PathTracker path) => path.Upstream.Section.IdleTimeout.Source == IdleTimeoutSource.Measure && !path.Unprovable;

    private KeptPathKey KeyOf(PathTracker path) => path.LearningKey ??= new KeptPathKey(
        namespaces.Find(path.Key.NamespaceInode)?.Name ?? "gone",
        new TcpEndPoint(path.Key.Source, 0).ToIPAddress().ToString(),
        "",
        path.Key.Destination.ToString());
}
