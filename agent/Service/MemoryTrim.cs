namespace Sidecar.Agent.Service;

/// <summary>
/// Scans leave next to nothing behind, so the collector would not come for hours after a start, or a description of all
/// connections, that did. It is called when something has gathered, and gives the room back; not while a rescue is under way.
/// </summary>
internal sealed class MemoryTrim
{
    private static readonly TimeSpan Every = TimeSpan.FromSeconds(15);
    private const long WorthIt = 8 * 1024 * 1024;

    private TimeSpan _next = Every;
    private long _allocated;

    /// <summary>Collects where that is worth it.</summary>
    public void Consider(AgentRooms rooms, TimeSpan now)
    {
        if (now < _next || rooms.Core.Engine.IsFollowing || rooms.Core.World.Silent.Count > 0)
        {
            return;
        }

        _next = now + Every;
        var allocated = GC.GetTotalAllocatedBytes();
        if (allocated - _allocated > WorthIt)
        {
            rooms.Core.World.TrimExcess();
            rooms.Eyes.Owners.TrimExcess();
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            _allocated = allocated;
        }
    }
}
