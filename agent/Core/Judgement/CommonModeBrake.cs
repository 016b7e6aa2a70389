namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// How many connections of an upstream may be closed in a second. When most of them go silent together, something common to them
/// is at work (a fail-over, a restarted router), and each that is closed comes back as a new one: the rate begins low, doubles
/// while connect probes are as quick as before, and halves when they are not. So the server says what it bears.
/// </summary>
public sealed class CommonModeBrake
{
    /// <summary>Fewer silent connections than this are no crowd.</summary>
    public const int Crowd = 3;

    /// <summary>Closed per second at first.</summary>
    public const int FirstRate = 10;

    /// <summary>And at most.</summary>
    public const int MostRate = 640;

    private const int LeastRate = 1;

    /// <summary>A connect probe that takes no longer than this is quick, whatever the ones before took.</summary>
    private static readonly TimeSpan Quick = TimeSpan.FromMilliseconds(20);

    /// <summary>The rate is changed no more often.</summary>
    private static readonly TimeSpan Between = TimeSpan.FromSeconds(1);

    /// <summary>Without a crowd, and nothing closed, for so long the rate begins low again.</summary>
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(30);

    private readonly Queue<TimeSpan> _closed = new();
    private TimeSpan? _usual;
    private TimeSpan _changed;
    private TimeSpan _lastUse = TimeSpan.MinValue / 2;

    /// <summary>Whether most connections are silent.</summary>
    public bool IsOn { get; private set; }

    /// <summary>Connections that may be closed within a second, in common mode and of those that rest.</summary>
    public int Rate { get; private set; } = FirstRate;

    /// <summary>Counts at one tick: silent are suspect, stuck and outage; total are all of the upstream.</summary>
    public void Update(int silent, int total, TimeSpan now)
    {
        IsOn = silent >= Crowd && silent * 2 > total;
        if (!IsOn && IsAtRestAt(now))
        {
            Rate = FirstRate;
        }
    }

    /// <summary>Whether nothing has been closed lately.</summary>
    public bool IsAtRestAt(TimeSpan now) => now - _lastUse > Rest;

    /// <summary>A connect probe has ended.</summary>
    /// <param name="took">How long the handshake took; null where it failed.</param>
    /// <param name="now">When, monotonic.</param>
    public void Probed(TimeSpan? took, TimeSpan now)
    {
        var isQuick = took is { } time && (time <= Quick || time <= _usual * 2);
        if (now - _lastUse > Rest)
        {
            _usual = took is { } usual && !(usual > _usual) ? usual : _usual ?? took; // nothing was closed lately: this is how it is by itself
        }
        else if (now - _changed >= Between)
        {
            _changed = now;
            Rate = isQuick ? Math.Min(Rate * 2, MostRate) : Math.Max(Rate / 2, LeastRate);
        }
    }

    /// <summary>Whether one more may be closed.</summary>
    public bool IsRateLeftAt(TimeSpan now)
    {
        while (_closed.TryPeek(out var oldest) && now - oldest >= TimeSpan.FromSeconds(1))
        {
            _closed.Dequeue();
        }

        return _closed.Count < Rate;
    }

    /// <summary>One was closed.</summary>
    public void Recycled(TimeSpan at)
    {
        if (IsAtRestAt(at))
        {
            _changed = at; // a connect probe that ends right now began before: it does not tell how the server bears this
        }

        _closed.Enqueue(at);
        _lastUse = at;
    }
}
