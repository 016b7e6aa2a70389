using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// What connections that are gone said of their process's progress (guardrail 5): a connection that was used during a
/// stall and closed since leaves no socket to ask.
/// </summary>
public sealed class Progress
{
    /// <summary>What happened this shortly before the stall (the request that led to it) is no progress.</summary>
    public static readonly TimeSpan Margin = TimeSpan.FromMilliseconds(250);

    /// <summary>The kernel gives up after a quarter of an hour: no stall is older.</summary>
    private static readonly TimeSpan Kept = TimeSpan.FromHours(1);

    private readonly Dictionary<ProcessIdentity, TimeSpan> _progress = [];

    /// <summary>How long before the observation the process last wrote to, or read from, the connection; null where that cannot be told.</summary>
    public static TimeSpan? Age(in KeptObservation socket)
    {
        var info = socket.Info;
        if (!info.IsPresent)
        {
            return null;
        }

        // A retransmission restarts last_data_sent, so a connection that is itself unanswered has not written.
        uint? age = info.DataSegmentsOut > 0 && info.Retransmits == 0 ? info.LastDataSentMilliseconds : null;

        // The kernel receives for a hung process too; only what was taken out of the queue counts.
        if (info.DataSegmentsIn > 0 && socket.ReceiveQueue == 0 && !(info.LastDataReceivedMilliseconds >= age))
        {
            age = info.LastDataReceivedMilliseconds;
        }

        return age is { } milliseconds ? TimeSpan.FromMilliseconds(milliseconds) : null;
    }

    /// <summary>Whether the last observation of a connection, which may have gone since and not be missed yet, showed progress after the stall had begun.</summary>
    internal static bool MovedSince(TrackedConnection connection, TimeSpan stallStart) =>
        Age(connection.Last) is { } age && connection.LastSeen - age > stallStart + Margin;

    /// <summary>Takes down the last progress that a connection showed before it went.</summary>
    internal void NoteGone(ProcessIdentity process, TrackedConnection connection, TimeSpan now)
    {
        if (Age(connection.Last) is { } age && connection.LastSeen - age is var at && (!_progress.TryGetValue(process, out var before) || at > before))
        {
            foreach (var (old, _) in _progress.Where(pair => now - pair.Value > Kept).ToList())
            {
                _progress.Remove(old);
            }

            _progress[process] = at;
        }
    }

    /// <summary>Whether the process made progress on a connection that is gone, after the stall had begun.</summary>
    internal bool MovedSince(ProcessIdentity process, TimeSpan stallStart) => _progress.TryGetValue(process, out var at) && at > stallStart + Margin;
}
