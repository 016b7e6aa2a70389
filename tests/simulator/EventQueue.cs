namespace Sidecar.Simulator;

/// <summary>Something that events happen to.</summary>
internal abstract class Actor
{
    /// <summary>An event that was scheduled has come due.</summary>
    /// <param name="what">The actor's own code for it.</param>
    /// <param name="version">As given when it was scheduled; actors ignore versions that are past.</param>
    /// <param name="now">Simulated time.</param>
    internal abstract void Happen(int what, int version, TimeSpan now);
}

/// <summary>A binary heap of events; those of the same time come in the order in which they were scheduled.</summary>
internal sealed class EventQueue
{
    private Entry[] _heap = new Entry[256];
    private int _count;
    private long _sequence;

    internal bool IsEmpty => _count == 0;

    internal TimeSpan NextTime => new(_heap[0].Time);

    internal void Add(TimeSpan time, Actor actor, int what, int version = 0)
    {
        if (_count == _heap.Length)
        {
            Array.Resize(ref _heap, _count * 2);
        }

        var entry = new Entry(time.Ticks, _sequence++, actor, what, version);
        var i = _count++;
        while (i > 0)
        {
            var parent = (i - 1) / 2;
            if (!entry.IsBefore(_heap[parent]))
            {
                break;
            }

            _heap[i] = _heap[parent];
            i = parent;
        }

        _heap[i] = entry;
    }

    internal (TimeSpan Time, Actor Actor, int What, int Version) Take()
    {
        var first = _heap[0];
        var last = _heap[--_count];
        _heap[_count] = default;
        var i = 0;
        while (true)
        {
            var child = (i * 2) + 1;
            if (child >= _count)
            {
                break;
            }

            if (child + 1 < _count && _heap[child + 1].IsBefore(_heap[child]))
            {
                child++;
            }

            if (!_heap[child].IsBefore(last))
            {
                break;
            }

            _heap[i] = _heap[child];
            i = child;
        }

        if (_count > 0)
        {
            _heap[i] = last;
        }

        return (new TimeSpan(first.Time), first.Actor, first.What, first.Version);
    }

    private readonly struct Entry(long time, long sequence, Actor actor, int what, int version)
    {
        internal readonly long Time = time;
        internal readonly Actor Actor = actor;
        internal readonly int What = what;
        internal readonly int Version = version;
        private readonly long _sequence = sequence;

        internal bool IsBefore(in Entry other) => Time != other.Time ? Time < other.Time : _sequence < other._sequence;
    }
}
