using Sidecar.Agent.Tracking;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// What connections that are gone said of their process's progress (guardrail 5): a connection that was used during a
/// stall and closed since leaves no socket to ask.
/// </summary>
internal sealed class ProgressMemory
{
    private readonly Dictionary<ProcessIdentity, TimeSpan> _progress = [];

    /// <summary>Takes down the last progress that a connection showed before it went.</summary>
    public void NoteGone(ProcessIdentity process, TrackedConnection connection)
    {
        if (ProgressProbe.Age(connection.Last) is { } age && connection.LastLook - age is var at
            && (!_progress.TryGetValue(process, out var before) || at > before))
        {
            _progress[process] = at;
        }
    }

    /// <summary>Whether the last look at a connection, which may have gone since and not be missed yet, showed progress after the stall had begun.</summary>
    public static bool MovedSince(TrackedConnection connection, TimeSpan stallStart) =>
        ProgressProbe.Age(connection.Last) is { } age && connection.LastLook - age > stallStart + ProgressProbe.Margin;

    /// <summary>Whether the process made progress on a connection that is gone, after the stall had begun.</summary>
    public bool MovedSince(ProcessIdentity process, TimeSpan stallStart) =>
        _progress.TryGetValue(process, out var at) && at > stallStart + ProgressProbe.Margin;

    /// <summary>Drops what is older than any stall can be: the kernel gives up after a quarter of an hour.</summary>
    public void Prune(TimeSpan now)
    {
        foreach (var (process, at) in _progress.ToList())
        {
            if (now - at > TimeSpan.FromHours(1))
            {
                _progress.Remove(process);
            }
        }
    }
}
