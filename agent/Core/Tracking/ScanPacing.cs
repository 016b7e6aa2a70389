using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// When the next full scan is due. While anything moves, a scan interval after the last one. Where no watched connection
/// carries data and the kernel opens and closes none and sends nothing again, each sleep is twice the one before, up to
/// <see cref="LongestSleep"/>. In between the kernel's counters are checked: nothing can hang without a
/// retransmission, so one after an interval without brings the next scan forward; where scans are cheap, any does. Asks no
/// clock; times are monotonic.
/// </summary>
public sealed class ScanPacing
{
    /// <summary>A retransmission is noticed this soon, where checking is cheap.</summary>
    public static readonly TimeSpan CheckInterval = TimeSpan.FromMilliseconds(200);

    /// <summary>Counter checks may take this part of the time.</summary>
    private const double CheckShare = 0.002;

    /// <summary>Scans that take no longer than this part of the interval may follow each retransmission.</summary>
    private const double CheapShare = 0.002;

    private const int MostIntervals = 5;

    /// <summary>Aging and expiry are decided at full scans: so many of them fall within the path's idle timeout at the least.</summary>
    private const int ScansPerTimeout = 16;

    private static readonly TimeSpan LongestSleep = TimeSpan.FromSeconds(5);

    private readonly TimeSpan _interval;
    private TcpCounters? _counters;
    private bool _isCalm;
    private bool _sentNothingAgain;
    private bool _isCheap;
    private bool _sawData;
    private TimeSpan _dataUntil = TimeSpan.MinValue;
    private TimeSpan _sleep;
    private TimeSpan _scanTakes = TimeSpan.MaxValue;
    private TimeSpan _checkTakes = TimeSpan.MaxValue;

    /// <summary>Pacing from <paramref name="now"/> on: the first scan is due at once.</summary>
    public ScanPacing(TimeSpan interval, TimeSpan now)
    {
        _interval = _sleep = interval;
        Next = Began = now;
    }

    /// <summary>When the next full scan is due.</summary>
    public TimeSpan Next { get; private set; }

    /// <summary>When the last one began.</summary>
    public TimeSpan Began { get; private set; }

    /// <summary>Time between two counter checks.</summary>
    public TimeSpan CheckEvery { get; private set; } = CheckInterval;

    /// <summary>A full scan begins. The next one counts from when this was due, so that scans do not drift; those that were missed are left out.</summary>
    /// <param name="now">When.</param>
    /// <param name="counters">The kernel's counters, read before scanning; null where they cannot be read.</param>
    public void Begin(TimeSpan now, TcpCounters? counters)
    {
        _isCalm = counters is not null && counters == _counters;
        _sentNothingAgain = counters is { } seen && seen.Retransmissions == _counters?.Retransmissions;
        _counters = counters;
        _sawData = false;
        Began = now;
        Next += _interval;
        if (Next <= now || Next > now + _interval)
        {
            Next = now + _interval;
        }
    }

    /// <summary>The scan has seen watched connections, the last of which carried data at this time.</summary>
    public void Saw(TimeSpan lastData)
    {
        if (lastData > _dataUntil)
        {
            _dataUntil = lastData;
            _sawData = true;
        }
    }

    /// <summary>The scan is done.</summary>
    /// <param name="took">How long it took.</param>
    /// <param name="isBusy">A connection is silent, or an action is under way.</param>
    /// <param name="shortestTimeout">The shortest idle timeout known of a path in use; null where none is known.</param>
    public void End(TimeSpan took, bool isBusy, TimeSpan? shortestTimeout)
    {
        _scanTakes = Usual(_scanTakes, took);
        _isCheap = _scanTakes <= _interval * CheapShare;
        _sleep = _isCalm && !_sawData && !isBusy ? Min(_sleep * 2, Longest(shortestTimeout)) : _interval;
        Next += _sleep - _interval;
    }

    /// <summary>The counters between two scans: whatever has changed brings the next scan forward.</summary>
    /// <param name="counters">What they are now; null where they cannot be read.</param>
    /// <param name="now">When they were read.</param>
    /// <param name="took">How long reading took.</param>
    public void Check(TcpCounters? counters, TimeSpan now, TimeSpan took)
    {
        _checkTakes = Usual(_checkTakes, took);
        CheckEvery = Max(CheckInterval, Min(_checkTakes / CheckShare, _interval));
        if (counters == _counters && counters is not null)
        {
            return;
        }

        // On a host that always sends something again every interval would be cut short, so only the first time where scans cost something.
        var isSentAgain = counters is { } seen && _counters is { } before && seen.Retransmissions != before.Retransmissions;
        var least = isSentAgain && _isCheap ? _interval / 5 : isSentAgain && _sentNothingAgain ? _interval / 2 : _interval;
        Bring(Began + least, now);
    }

    /// <summary>A scan is wanted before it would be due.</summary>
    /// <param name="at">When.</param>
    /// <param name="now">The time; what was wanted earlier is due now.</param>
    public void Bring(TimeSpan at, TimeSpan now) => Next = Min(Next, Max(at, now));

    /// <summary>
    /// What it takes by itself: on a busy host the agent is held up in the middle, and just then it must not become slower to see. What
    /// has become slower for good shows within a minute.
    /// </summary>
    private static TimeSpan Usual(TimeSpan before, TimeSpan took) => took < before ? took : Min(took, before + (before / 16) + TimeSpan.FromMicroseconds(1));

    private TimeSpan Longest(TimeSpan? shortestTimeout) =>
        Max(_interval, Min(Min(_interval * MostIntervals, LongestSleep), (shortestTimeout ?? TimeSpan.MaxValue) / ScansPerTimeout));

    private static TimeSpan Min(TimeSpan a, TimeSpan b) => a < b ? a : b;

    private static TimeSpan Max(TimeSpan a, TimeSpan b) => a > b ? a : b;
}
