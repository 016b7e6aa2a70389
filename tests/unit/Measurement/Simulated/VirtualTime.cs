namespace Sidecar.UnitTests.Measurement.Simulated;

/// <summary>
/// A clock that stands still until all that was to be done has been done, and then jumps to the next timer. What runs on it runs
/// on one thread, so that a seed gives the same run each time.
/// </summary>
/// <param name="random">How late timers are.</param>
internal sealed class VirtualTime(Random random) : TimeProvider
{
    private readonly PriorityQueue<Timer, (long At, long Order)> _timers = new();

    // Not zero: that is what "never" looks like to those who keep timestamps.
    private long _now = TimeSpan.TicksPerHour;
    private long _order;

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public TimeSpan Now => TimeSpan.FromTicks(_now);

    /// <summary>Reading the clock takes a microsecond, so that waiting for less than a timer can wait for comes to an end.</summary>
    public override long GetTimestamp() => _now += 10;

    public override DateTimeOffset GetUtcNow() => DateTimeOffset.UnixEpoch.AddTicks(_now);

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new Timer(this, callback, state);
        timer.Change(dueTime, period);
        return timer;
    }

    /// <summary>Does something after a time.</summary>
    public void After(TimeSpan delay, Action action) => Enqueue(new Timer(this, _ => action(), null), delay, isLate: false);

    /// <summary>Runs a task to its end.</summary>
    /// <exception cref="InvalidOperationException">It waits for what is not in this world, or does not end within the limit.</exception>
    public T Run<T>(Func<Task<T>> work, TimeSpan limit)
    {
        // Without the test runner's context what was waited for goes on at once, on this thread.
        var context = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            var task = work();
            for (var end = _now + limit.Ticks; !task.IsCompleted;)
            {
                if (!_timers.TryDequeue(out var timer, out var due) || due.At > end)
                {
                    throw new InvalidOperationException(_timers.Count == 0 ? "nothing is due, and it has not ended" : $"has not ended within {limit}");
                }

                _now = Math.Max(_now, due.At);
                timer.Fire(due.Order);
            }

            return task.GetAwaiter().GetResult();
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(context);
        }
    }

    private long Enqueue(Timer timer, TimeSpan delay, bool isLate)
    {
        // A host is seldom late by much.
        var late = !isLate ? 0 : random.Next(100) == 0 ? random.Next(30_0000) : random.Next(3000);
        var order = ++_order;
        _timers.Enqueue(timer, (_now + delay.Ticks + late, order));
        timer.Current = order;
        return order;
    }

    private sealed class Timer(VirtualTime time, TimerCallback callback, object? state) : ITimer
    {
        public long Current { get; set; }

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            Current = 0;
            if (dueTime >= TimeSpan.Zero)
            {
                time.Enqueue(this, dueTime, isLate: true);
            }

            return true;
        }

        public void Fire(long order)
        {
            if (order == Current)
            {
                Current = 0;
                callback(state);
            }
        }

        public void Dispose() => Current = 0;

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
