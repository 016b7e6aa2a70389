using Sidecar.Probes.Sockets;

namespace Sidecar.Probes.Ladder;

/// <summary>How an idle connection was lost.</summary>
public enum LossKind
{
    /// <summary>Nothing comes back: the path dropped it silently.</summary>
    Silent,

    /// <summary>RST.</summary>
    Reset,

    /// <summary>FIN, without a word.</summary>
    PeerClosed,

    /// <summary>The server said that it ends an idle session, and closed.</summary>
    PeerAnnounced,
}

/// <summary>What came back when application data was sent.</summary>
public enum ExchangeOutcome
{
    Answered,
    Silent,
    Reset,
    PeerClosed,
    PeerAnnounced,

    /// <summary>Ended by an administrator or a shutdown: says nothing about the path.</summary>
    Disturbed,

    /// <summary>There is no application data to send.</summary>
    NotPossible,
}

/// <summary>The verdict on one connection after one gap.</summary>
/// <param name="Survived">Longest idle time that it certainly survived; null when it is not known to have survived any.</param>
/// <param name="Lost">Shortest idle time after which it was certainly lost; null when it survived.</param>
/// <param name="Loss">How it was lost; null when it survived.</param>
/// <param name="KeepaliveAnswered">Whether the probe without data was answered; null when none could be sent.</param>
/// <param name="PayloadAnswered">Whether application data was answered; null when there was none to send.</param>
/// <param name="Disturbed">True when the connection ended for a reason that says nothing about the path.</param>
public sealed record GapTest(
    TimeSpan? Survived,
    TimeSpan? Lost,
    LossKind? Loss,
    bool? KeepaliveAnswered,
    bool? PayloadAnswered,
    bool Disturbed = false);

/// <summary>What a scan at an idling connection finds.</summary>
public enum IdleScan
{
    /// <summary>Nothing has moved.</summary>
    Idle,

    /// <summary>The peer moved segments of its own accord (its keepalives): the path's clock has restarted.</summary>
    Refreshed,

    /// <summary>The connection is closed or half-closed: test it at once for the verdict.</summary>
    Ended,
}

/// <summary>
/// A connection of our own that idles for the sake of measurement, and is then tested: first by a keepalive probe,
/// which carries no data, then by application data where the protocol has some that does no harm.
/// </summary>
public abstract class LadderConnection : IAsyncDisposable
{
    // Two probes, the second one second after the first, before data is sent; where there is none to send the probes decide,
    // and seven unanswered in a row are lost by chance once in thousands at 15 % loss in each direction.
    private static readonly TimeSpan KeepalivePatience = TimeSpan.FromSeconds(1.25);
    private static readonly TimeSpan KeepaliveOnlyPatience = TimeSpan.FromSeconds(6.25);

    // Four probes, of which the first may have to wait until nothing has been heard for a second.
    private static readonly TimeSpan HearPatience = TimeSpan.FromSeconds(4.5);

    // Time for four retransmissions (TCP_RTO_MIN 0.2 s, doubled).
    private static readonly TimeSpan PayloadPatience = TimeSpan.FromSeconds(3.25);

    // Delayed acknowledgements come within 40 ms (TCP_DELACK_MIN); when nothing moves for longer, nothing will.
    private static readonly TimeSpan Quiet = TimeSpan.FromMilliseconds(60);

    // A server that ends an idle session says so first: its FIN comes a moment after its last words.
    private static readonly TimeSpan LastWords = TimeSpan.FromMilliseconds(200);

    // TCP_INFO's ages count jiffies of up to 10 ms.
    private static readonly TimeSpan JiffyRounding = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(15);

    // Nothing moved after the first; something moved after the second. Between them lies the last segment: this process
    // may be scheduled late, and a survived gap has to be rounded down, a lost one up.
    private readonly TimeProvider _clock;
    private readonly long _made;
    private long _idleSince;
    private long _movedAfter;
    private long _lastScan;
    private uint _segmentsIn;
    private uint _segmentsOut;
    private ulong _bytesReceived;
    private long? _spokenAt;

    /// <summary>Takes a connection that has just been made.</summary>
    /// <param name="socket">Its socket.</param>
    /// <param name="clock">By which it idles.</param>
    protected LadderConnection(ILadderSocket socket, TimeProvider clock)
    {
        _clock = clock;
        Socket = socket;
        OwnSockets.Add(socket.Cookie);
        _made = _idleSince = _movedAfter = _lastScan = _clock.GetTimestamp();
    }

    /// <summary>The socket, for scans and keepalives.</summary>
    public ILadderSocket Socket { get; }

    /// <summary>How long it has been open, at least.</summary>
    public TimeSpan Lifetime => _clock.GetElapsedTime(_made);

    /// <summary>How long nothing has moved on the connection, at least.</summary>
    public TimeSpan Age => _clock.GetElapsedTime(_idleSince);

    /// <summary>How long nothing has moved on the connection, at most; or had, when the peer began to speak of its own accord.</summary>
    private TimeSpan AgeAtMost => _clock.GetElapsedTime(_movedAfter, _spokenAt ?? _clock.GetTimestamp());

    /// <summary>Whether the protocol has application data that may be sent.</summary>
    public abstract bool HasPayload { get; }

    /// <summary>Sends application data and waits for what comes back, at most <paramref name="patience"/>.</summary>
    public abstract Task<ExchangeOutcome> ExchangeAsync(TimeSpan patience, CancellationToken cancellation);

    /// <summary>Closes the connection. Does not throw when it was lost.</summary>
    public async ValueTask DisposeAsync()
    {
        await CloseAsync();
        OwnSockets.Remove(Socket.Cookie);
        GC.SuppressFinalize(this);
    }

    protected abstract ValueTask CloseAsync();

    /// <summary>Waits until the last exchange's acknowledgements are through; the idle time counts from there.</summary>
    public async Task SettleAsync(CancellationToken cancellation)
    {
        for (var round = 0; ; round++)
        {
            var earlier = _clock.GetTimestamp();
            if (!Socket.TryReadInfo(out var before))
            {
                return;
            }

            var at = _clock.GetTimestamp();
            await Task.Delay(Quiet, _clock, cancellation);
            if (!Socket.TryReadInfo(out var after))
            {
                return;
            }

            // A peer that never rests is found by the scans that follow.
            if (round == 20 || (before.SegmentsIn == after.SegmentsIn && before.SegmentsOut == after.SegmentsOut))
            {
                _idleSince = at;
                _movedAfter = earlier - (long)((before.SinceHeard + JiffyRounding).TotalSeconds * _clock.TimestampFrequency);
                _lastScan = _clock.GetTimestamp();
                IdleFrom(after);
                return;
            }
        }
    }

    /// <summary>
    /// Scans of the idling connection. After <see cref="IdleScan.Refreshed"/> its age has restarted. Data that came
    /// unasked may be the peer's last words, so that for a moment they are not taken for a refreshment.
    /// </summary>
    public IdleScan Scan(out TimeSpan ageBefore)
    {
        ageBefore = Age;
        if (!Socket.TryReadInfo(out var info) || info.State != OwnSocketInfo.Established)
        {
            return IdleScan.Ended;
        }

        var now = _clock.GetTimestamp();
        if (info.SegmentsIn != _segmentsIn || info.SegmentsOut != _segmentsOut)
        {
            if (info.BytesReceived != _bytesReceived && _clock.GetElapsedTime(_spokenAt ??= now, now) < LastWords)
            {
                return IdleScan.Idle;
            }

            IdleFrom(info);
            _movedAfter = _lastScan;
            _idleSince = _lastScan = now;
            return IdleScan.Refreshed;
        }

        _lastScan = now;
        return IdleScan.Idle;
    }

    /// <summary>Tests the connection. A connection that survived is settled and idles anew when this returns.</summary>
    public async Task<GapTest> TestAsync(CancellationToken cancellation)
    {
        var age = Age;
        if (!Socket.TryReadInfo(out var before))
        {
            return new GapTest(null, null, null, null, null, Disturbed: true);
        }

        if (before.State != OwnSocketInfo.Established)
        {
            return await EndedAsync(before.State, cancellation);
        }

        Socket.FireKeepalive();
        var fired = _clock.GetTimestamp();
        TimeSpan? lost = null;
        var keepaliveAnswered = false;
        while (_clock.GetElapsedTime(fired) < (HasPayload ? KeepalivePatience : KeepaliveOnlyPatience) + (before.RoundTrip * 2))
        {
            await Task.Delay(Poll, _clock, cancellation);
            if (!Socket.TryReadInfo(out var now))
            {
                return new GapTest(null, null, null, null, null, Disturbed: true);
            }

            // The probe has left by now: the gap that it ended is no longer than this.
            if (now.SegmentsOut != before.SegmentsOut)
            {
                lost ??= AgeAtMost;
            }

            if (now.State != OwnSocketInfo.Established)
            {
                return await EndedAsync(now.State, cancellation, lost ?? AgeAtMost);
            }

            if (now.SegmentsIn != before.SegmentsIn)
            {
                keepaliveAnswered = true;
                break;
            }
        }

        if (keepaliveAnswered)
        {
            Socket.StopKeepalive();
        }

        var payload = await ExchangeAsync(PayloadPatience + (before.RoundTrip * 2), cancellation);
        Socket.StopKeepalive();
        lost ??= AgeAtMost;
        switch (payload)
        {
            case ExchangeOutcome.Answered:
            case ExchangeOutcome.NotPossible when keepaliveAnswered:
                await SettleAsync(cancellation);
                return new GapTest(age, null, null, keepaliveAnswered, payload == ExchangeOutcome.Answered ? true : null);
            case ExchangeOutcome.Disturbed:
                return new GapTest(null, null, null, keepaliveAnswered, null, Disturbed: true);
            case ExchangeOutcome.NotPossible:
                return new GapTest(null, lost, LossKind.Silent, keepaliveAnswered, null);
            default:
                return new GapTest(null, lost, KindOf(payload), keepaliveAnswered, false);
        }
    }

    /// <summary>Whether the peer answers a keepalive, without application data. Set the keepalives anew afterwards.</summary>
    public async Task<bool> IsHeardAsync(CancellationToken cancellation)
    {
        if (!Socket.TryReadInfo(out var before) || before.State != OwnSocketInfo.Established)
        {
            return false;
        }

        Socket.FireKeepalive();
        for (var fired = _clock.GetTimestamp(); _clock.GetElapsedTime(fired) < HearPatience + (before.RoundTrip * 2);)
        {
            await Task.Delay(Poll, _clock, cancellation);
            if (!Socket.TryReadInfo(out var now) || now.State != OwnSocketInfo.Established)
            {
                return false;
            }

            if (now.SegmentsIn != before.SegmentsIn)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>What moves from these counters on ends the idle time.</summary>
    private void IdleFrom(in OwnSocketInfo info) =>
        (_segmentsIn, _segmentsOut, _bytesReceived, _spokenAt) = (info.SegmentsIn, info.SegmentsOut, info.BytesReceived, null);

    private async Task<GapTest> EndedAsync(byte state, CancellationToken cancellation, TimeSpan? probed = null)
    {
        // It was open at the last scan. An end that our own probe brought about says only that it was lost by then.
        var survived = probed is null ? _clock.GetElapsedTime(_idleSince, _lastScan) : (TimeSpan?)null;
        var lost = probed ?? AgeAtMost;
        if (state == OwnSocketInfo.Closed)
        {
            const int connectionTimedOut = 110;
            var kind = Socket.TakeError() == connectionTimedOut ? LossKind.Silent : LossKind.Reset;
            return new GapTest(survived, lost, kind, null, null);
        }

        // Half-closed by the peer. What it said before tells whose decision that was.
        var payload = HasPayload ? await ExchangeAsync(PayloadPatience, cancellation) : ExchangeOutcome.PeerClosed;
        return payload == ExchangeOutcome.Disturbed
            ? new GapTest(null, null, null, null, null, Disturbed: true)
            : new GapTest(survived, lost, payload == ExchangeOutcome.PeerAnnounced ? LossKind.PeerAnnounced : LossKind.PeerClosed, null, null);
    }

    private static LossKind KindOf(ExchangeOutcome outcome) => outcome switch
    {
        ExchangeOutcome.Reset => LossKind.Reset,
        ExchangeOutcome.PeerClosed => LossKind.PeerClosed,
        ExchangeOutcome.PeerAnnounced => LossKind.PeerAnnounced,
        _ => LossKind.Silent,
    };
}
