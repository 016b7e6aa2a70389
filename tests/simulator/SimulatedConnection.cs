using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>One connection, both ends of it and the router's entry: the truth that the agent does not see.</summary>
internal sealed class SimulatedConnection : Actor
{
    private const int ServerReceives = 1;
    private const int ServerAcknowledges = 2;
    private const int ServerResponds = 3;
    private const int AcknowledgementArrives = 4;
    private const int ResponseArrives = 5;
    private const int ResetArrives = 6;
    private const int TimerFires = 7;
    private const int ServerTimerFires = 8;
    private const int ServerKeepalive = 9;
    private const int WindowAcknowledgementArrives = 10;
    private const int ProbeAnswerArrives = 11;
    private const int KeepaliveFires = 12;
    private const int KeepaliveAnswerArrives = 13;
    private const int WindowProbeAnswerArrives = 14;
    private const int TailArrives = 15;

    /// <summary>Share of requests, and of answers, that take large segments where that makes a difference.</summary>
    private const double Large = 0.1;

    /// <summary>net.ipv4.tcp_invalid_ratelimit.</summary>
    private static readonly TimeSpan InvalidRateLimit = TimeSpan.FromMilliseconds(500);

    private static readonly TimeSpan DelayedAcknowledgement = TimeSpan.FromMilliseconds(40);

    /// <summary>tcp_retries2 = 15.</summary>
    private static readonly TimeSpan GivesUpAfter = TimeSpan.FromSeconds(924.6);

    private readonly World _world;
    private readonly Dice _dice;
    private int _request;
    private int _received;
    private int _responded;
    private int _completed;
    private int _timer;
    private bool _isPublished;
    private bool _isLargeRequest;
    private bool _isLargeAnswer;
    private bool _tailLossProbed;
    private int _serverRetransmissions;
    private int _keepalivesMissed;
    private int _keepalive;
    private int _keepaliveTimer;
    private TimeSpan _windowOpensAt;
    private TimeSpan _lastInvalid = TimeSpan.MinValue / 2;
    private KeepaliveOptions _options;
    private readonly KeepaliveOptions _original;

    internal SimulatedConnection(World world, SimulatedPath path, SimulatedThread thread, SocketKey key, uint inode, TimeSpan now)
    {
        _world = world;
        _dice = world.Dice;
        Path = path;
        Thread = thread;
        Established = now;
        EntryMade = now;
        EntrySeen = now;
        Leg = world.LegOf(key.Local.Port);
        ServerClosedAt = path.IsSpokenFor(now) ? now : null; // a proxy has accepted, and the server never heard of it
        Socket = new ClientSocket(key, inode, now, path.RoundTrip);
        if (world.ServerKeepalive > TimeSpan.Zero)
        {
            world.Queue.Add(now + world.ServerKeepalive, this, ServerKeepalive);
        }

        _original = _options = world.Keepalive > TimeSpan.Zero
            ? new KeepaliveOptions(true, world.Keepalive, world.KeepaliveInterval, world.KeepaliveCount, TimeSpan.Zero)
            : new KeepaliveOptions(false, TimeSpan.FromSeconds(7200), TimeSpan.FromSeconds(75), 9, TimeSpan.Zero);
        if (_options.Enabled)
        {
            ArmKeepalive(now + _options.Idle);
        }
    }

    internal SimulatedPath Path { get; }

    internal SimulatedThread Thread { get; }

    internal ClientSocket Socket { get; }

    /// <summary>The leg of a bundle that its port is hashed to.</summary>
    internal int Leg { get; }

    internal TimeSpan Established { get; }

    /// <summary>When the router's entry was made, the beginning of time where there is none, and when it last saw a packet.</summary>
    internal TimeSpan EntryMade { get; set; }

    internal TimeSpan EntrySeen { get; set; }

    /// <summary>When the client's end closed; null while it is open.</summary>
    internal TimeSpan? Ended { get; private set; }

    /// <summary>What the agent knows of it; null before it first saw it.</summary>
    internal TrackedConnection? Tracked { get; set; }

    /// <summary>When it last sent something that wants an answer at once: data, or the agent's window probe.</summary>
    internal TimeSpan AskedAt { get; private set; }

    /// <summary>When the client's socket last changed.</summary>
    internal TimeSpan ChangedAt { get; set; }

    /// <summary>When the server's end went for another reason than a restart.</summary>
    internal bool ServerClosed => ServerClosedAt is not null;

    internal TimeSpan? ServerClosedAt { get; private set; }

    /// <summary>What it sends is too large for its way at present.</summary>
    internal bool IsInHole => _isLargeRequest && Path.HasHole && Socket.Unacknowledged > 0;

    internal bool ServerHasIt => !ServerClosed && Established > Path.ServerLostAt;

    internal bool IsForgotten(TimeSpan now) => EntryMade <= Path.TableLostAt || (Path.Timeout is { } timeout && now - EntrySeen >= timeout);

    /// <summary>The truth: left alone, and with the path up, it would go on.</summary>
    internal bool IsLive(TimeSpan now) => Ended is null && ServerHasIt && (Path.Router == Forgetful.PicksUp || !IsForgotten(now));

    /// <summary>Data of the client's is out on it.</summary>
    internal bool IsUnanswered => Ended is null && Socket.Unacknowledged > 0;

    /// <summary>The server has its request, and its worker waits for an answer.</summary>
    internal bool IsAnswerAwaited => Ended is null && Socket.Unacknowledged == 0 && _completed < _request;

    /// <summary>Something is sent that asks for no answer.</summary>
    internal void Publish(TimeSpan now)
    {
        Request(now);
        _isPublished = true;
    }

    internal void Request(TimeSpan now)
    {
        _request++;
        _isPublished = false;
        _isLargeRequest = Path.HoursBetweenHoles > 0 && _dice.Chance(Large);
        _isLargeAnswer = Path.HoursBetweenHoles > 0 && _dice.Chance(Large);
        Touch(now);
        Socket.Send(now);
        _tailLossProbed = !_world.TailLossProbes;
        Socket.TimerAt = now + (_world.TailLossProbes ? ClientSocket.LeastTimeout + (Path.RoundTrip * 2) : Socket.Timeout);
        Transmit(now);
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        if (Ended is not null && what != ServerReceives)
        {
            return;
        }

        switch (what)
        {
            case ServerReceives:
                AtServer(version, now);
                break;
            case ServerAcknowledges when version == _request:
                Send(AcknowledgementArrives, now);
                break;
            case ServerResponds when version == _request && ServerHasIt:
                _responded = version;
                Respond(now);
                break;
            case AcknowledgementArrives when version == _request && Socket.Unacknowledged > 0:
                Touch(now);
                Socket.Acknowledge(now);
                _timer++;
                _completed = _isPublished ? _request : _completed;
                break;
            case TailArrives:
                Touch(now);
                Socket.ReceiveOutOfOrder(now);
                _timer++;
                break;
            case ResponseArrives:
                ResponseReceived(version, now);
                break;
            case ResetArrives:
                End(now, "reset");
                break;
            case TimerFires when version == _timer:
                Timer(now);
                break;
            case ServerTimerFires when version == _request && _serverRetransmissions > 0:
                Respond(now);
                break;
            case ServerKeepalive:
                PeerKeepalive(now);
                break;
            case WindowAcknowledgementArrives when version == _request && Socket.Unacknowledged > 0:
                Touch(now);
                Socket.CloseWindow(now);
                _timer++;
                Socket.TimerAt = now + Socket.Timeout;
                _world.Queue.Add(Socket.TimerAt, this, TimerFires, _timer);
                break;
            case ProbeAnswerArrives when Socket.NotSent > 0:
                Touch(now);
                Socket.ProbeAnswered(now);
                if (now >= _windowOpensAt)
                {
                    Socket.OpenWindow();
                    _timer++;
                    Socket.Send(now);
                    _tailLossProbed = true;
                    Socket.TimerAt = now + Socket.Timeout;
                    Transmit(now);
                }

                break;
            case KeepaliveFires when version == _keepaliveTimer:
                Keepalive(now);
                break;
            case KeepaliveAnswerArrives when version == _keepalive:
                Touch(now);
                Socket.ProbeAnswered(now);
                break;
            case WindowProbeAnswerArrives when Socket.NotSent > 0:
                Happen(ProbeAnswerArrives, 0, now);
                break;
            case WindowProbeAnswerArrives:
                Touch(now);
                if (Socket.Unacknowledged > 0 && version == _request)
                {
                    Socket.Acknowledge(now); // the data had arrived, and its acknowledgement was lost
                    _timer++;
                }
                else
                {
                    Socket.WindowProbeAnswered(now);
                }

                break;
        }
    }

    /// <summary>The client's end closes: by RST, timeout, SOCK_DESTROY, or with its process.</summary>
    internal void End(TimeSpan now, string why)
    {
        if (Ended is not null)
        {
            return;
        }

        Touch(now);
        _world.Released(this, now, why);
        Ended = now;
        Socket.State = TcpState.Close;
        _world.Left(this, now);
        Thread.ConnectionLost(this, now);
    }

    /// <summary>The server's end says goodbye (FIN, which a worker takes for an end).</summary>
    internal void Goodbye(TimeSpan now)
    {
        ServerClosedAt = now;
        if (Path.Backward(this, now) == Fate.Delivered)
        {
            _world.Queue.Add(now + (Path.RoundTrip / 2), this, ResetArrives);
        }
    }

    /// <summary>To be called before anything changes in the client's socket.</summary>
    private void Touch(TimeSpan now) => _world.Touched(this, now);

    private void Transmit(TimeSpan now)
    {
        AskedAt = now;
        switch (Path.Forward(this, now, _isLargeRequest))
        {
            case Fate.Delivered:
                _world.Queue.Add(now + (Path.RoundTrip / 2), this, ServerReceives, _request);
                return;
            case Fate.Reset:
                _world.Queue.Add(now + (Path.RoundTrip / 4), this, ResetArrives);
                return;
            default:
                ArmTimer(now);
                return;
        }
    }

    /// <summary>Lets the retransmission timer fire; only needed once it is known that no answer will come before it.</summary>
    private void ArmTimer(TimeSpan now) => _world.Queue.Add(Socket.TimerAt > now ? Socket.TimerAt : now, this, TimerFires, ++_timer);

    /// <summary>A segment of the server's without data.</summary>
    private void Send(int arrival, TimeSpan now)
    {
        if (Path.Backward(this, now) == Fate.Delivered)
        {
            _world.Queue.Add(now + (Path.RoundTrip / 2), this, arrival, _request);
        }
        else
        {
            ArmTimer(now);
        }
    }

    private void AtServer(int request, TimeSpan now)
    {
        if (!ServerHasIt)
        {
            // A restarted server knows nothing of it; a host that is down does not even say so.
            if (Path.Backward(this, now) == Fate.Delivered)
            {
                _world.Queue.Add(now + (Path.RoundTrip / 2), this, ResetArrives);
            }
            else if (Ended is null && Socket.Unacknowledged > 0)
            {
                ArmTimer(now);
            }

            return;
        }

        if (Ended is not null)
        {
            ServerClosedAt = now;
            return;
        }

        if (request != _request)
        {
            return;
        }

        if (_received == request)
        {
            // A repetition: acknowledged at once, and it starts the clock of the limit for probes.
            _lastInvalid = now;
            Send(AcknowledgementArrives, now);
            return;
        }

        if (_windowOpensAt <= now && _dice.Chance(_world.ZeroWindows))
        {
            _windowOpensAt = now + _dice.MagnitudeSeconds(1, 1200);
            _world.Trace(now, $"{this} window closes until {World.Text(_windowOpensAt)}");
            Send(WindowAcknowledgementArrives, now);
            return;
        }

        _received = request;
        if (_isPublished)
        {
            _world.Queue.Add(now + DelayedAcknowledgement, this, ServerAcknowledges, request);
            return;
        }

        var service = _world.ServiceTime();
        if (service >= DelayedAcknowledgement)
        {
            _world.Queue.Add(now + DelayedAcknowledgement, this, ServerAcknowledges, request);
        }

        _serverRetransmissions = 0;
        _world.Queue.Add(now + service, this, ServerResponds, request);
    }

    private void Respond(TimeSpan now)
    {
        if (!ServerHasIt)
        {
            return;
        }

        // The response arrives and its acknowledgement comes back, or the server repeats it later.
        var arrives = Path.Backward(this, now) == Fate.Delivered;
        if (arrives && _isLargeAnswer && Path.HasHole)
        {
            arrives = false;
            if (_serverRetransmissions == 0)
            {
                _world.Queue.Add(now + (Path.RoundTrip / 2), this, TailArrives, _responded); // its last segment is small
            }
        }
        else if (arrives)
        {
            _world.Queue.Add(now + (Path.RoundTrip / 2), this, ResponseArrives, _responded);
        }
        else if (Socket.Unacknowledged > 0)
        {
            ArmTimer(now);
        }

        if (!arrives || Path.Forward(this, now) != Fate.Delivered)
        {
            if (++_serverRetransmissions > 15)
            {
                ServerClosedAt = now;
                return;
            }

            var wait = (ClientSocket.LeastTimeout + Path.RoundTrip) * (1L << Math.Min(_serverRetransmissions - 1, 10));
            _world.Queue.Add(now + (wait > TimeSpan.FromSeconds(120) ? TimeSpan.FromSeconds(120) : wait), this, ServerTimerFires, _request);
        }
        else
        {
            _serverRetransmissions = 0;
        }
    }

    private void ResponseReceived(int request, TimeSpan now)
    {
        Touch(now);
        if (request != _request || _completed == request)
        {
            Socket.PeerKeepalive(); // a repetition: counted, answered, otherwise of no account
            return;
        }

        _completed = request;
        _timer++;
        Socket.Receive(now);
        Thread.Answered(this, now);
    }

    private void Timer(TimeSpan now)
    {
        if (Socket.NotSent > 0)
        {
            Touch(now);
            if (Socket.Probes >= 15)
            {
                End(now, "zero-window probes unanswered");
                return;
            }

            Socket.ZeroWindowProbe();
            Socket.TimerAt = now + Socket.Timeout;
            ArmTimer(now);
            if (Path.Forward(this, now) == Fate.Delivered && ServerHasIt && Path.Backward(this, now) == Fate.Delivered)
            {
                _world.Queue.Add(now + Path.RoundTrip, this, ProbeAnswerArrives);
            }

            return;
        }

        if (Socket.Unacknowledged == 0)
        {
            return;
        }

        if (now - Socket.FirstSent >= GivesUpAfter)
        {
            End(now, "the kernel gave up");
            return;
        }

        Touch(now);
        _world.Count(new TcpCounters(0, 0, 1), now);
        if (_tailLossProbed)
        {
            Socket.RetransmissionTimeout(now);
        }
        else
        {
            _tailLossProbed = true;
            Socket.TailLossProbe(now);
        }

        Socket.TimerAt = now + Socket.Timeout;
        Transmit(now);
    }

    private void PeerKeepalive(TimeSpan now)
    {
        if (!ServerHasIt)
        {
            return;
        }

        if (_keepalivesMissed == 0 && now - EntrySeen < _world.ServerKeepalive)
        {
            _world.Queue.Add(EntrySeen + _world.ServerKeepalive, this, ServerKeepalive);
            return;
        }

        var answered = false;
        if (Path.Backward(this, now) == Fate.Delivered)
        {
            Touch(now);
            Socket.PeerKeepalive();
            answered = Path.Forward(this, now) == Fate.Delivered;
        }

        _keepalivesMissed = answered ? 0 : _keepalivesMissed + 1;
        if (_keepalivesMissed > 5)
        {
            ServerClosedAt = now;
            return;
        }

        _world.Queue.Add(now + (answered ? _world.ServerKeepalive : TimeSpan.FromSeconds(10)), this, ServerKeepalive);
    }

    private void ArmKeepalive(TimeSpan at)
    {
        Socket.KeepaliveAt = at;
        _world.Queue.Add(at, this, KeepaliveFires, ++_keepaliveTimer);
    }

    /// <summary>The keepalive timer: a probe when the peer was not heard of for so long, then one per interval.</summary>
    private void Keepalive(TimeSpan now)
    {
        if (Socket.Unacknowledged > 0 || Socket.NotSent > 0)
        {
            ArmKeepalive(now + _options.Idle);
            return;
        }

        if (now - Socket.LastHeard < _options.Idle)
        {
            ArmKeepalive(Socket.LastHeard + _options.Idle);
            return;
        }

        if (Socket.Probes >= _options.Count)
        {
            _world.EndedByKeepalive(this, isAgents: _options != _original && !_original.Enabled, _options.Interval, now);
            End(now, "keepalives unanswered");
            return;
        }

        Touch(now);
        Socket.SendKeepalive();
        _keepalive++;
        switch (Path.Forward(this, now))
        {
            case Fate.Delivered when Path.Backward(this, now) == Fate.Delivered:
                _world.Queue.Add(now + Path.RoundTrip, this, ServerHasIt ? KeepaliveAnswerArrives : ResetArrives, _keepalive);
                break;
            case Fate.Reset:
                _world.Queue.Add(now + (Path.RoundTrip / 4), this, ResetArrives);
                break;
        }

        ArmKeepalive(now + _options.Interval);
    }

    /// <summary>The agent sends a window probe on it: a segment without data, below what was acknowledged.</summary>
    internal TouchOutcome WindowProbe(TimeSpan now)
    {
        if (!_world.ProbesPermitted)
        {
            return TouchOutcome.NotPermitted;
        }

        _world.NoteWindowProbe();
        AskedAt = now;
        Touch(now);
        Socket.SendWindowProbe();
        switch (Path.Forward(this, now))
        {
            case Fate.Reset:
                _world.Queue.Add(now + (Path.RoundTrip / 4), this, ResetArrives);
                break;
            case Fate.Delivered when ServerHasIt:
                // Answered at once, and no more than twice a second. A stack that ignored such a segment would ignore keepalives too:
                // they have the same form.
                if (now - _lastInvalid >= InvalidRateLimit)
                {
                    _lastInvalid = now;
                    if (Path.Backward(this, now) == Fate.Delivered)
                    {
                        _world.Queue.Add(now + Path.RoundTrip, this, WindowProbeAnswerArrives, _received);
                    }
                }

                break;
            case Fate.Delivered when Path.Backward(this, now) == Fate.Delivered:
                _world.Queue.Add(now + Path.RoundTrip, this, ResetArrives);
                break;
        }

        return TouchOutcome.Done;
    }

    /// <summary>The agent takes the back-off back (RFC 6069): what is in flight is retransmitted at once.</summary>
    internal ResumeOutcome Resume(TimeSpan now)
    {
        if (Socket.Unacknowledged == 0 || Socket.Timeouts == 0)
        {
            return ResumeOutcome.LeftAlone;
        }

        _world.NoteResumed();
        Socket.RevertBackoff();
        _timer++;
        Timer(now);
        return ResumeOutcome.Done;
    }

    /// <summary>The agent reads the keepalive options, and may set others; the timer runs with them as the kernel lets it.</summary>
    internal KeepaliveOutcome ChangeKeepalive(Func<KeepaliveOptions, KeepaliveOptions?> decide, bool force, TimeSpan now)
    {
        var before = _options;
        if (!_world.TouchPermitted)
        {
            return new KeepaliveOutcome(TouchOutcome.NotPermitted, default, null);
        }

        if (decide(before) is not { } wanted)
        {
            return new KeepaliveOutcome(TouchOutcome.Done, before, null);
        }

        Touch(now);
        _options = wanted;
        if (!wanted.Enabled)
        {
            Socket.KeepaliveAt = null;
            _keepaliveTimer++;
        }
        else if (!before.Enabled || wanted.Idle != before.Idle || force)
        {
            // Counted from when something was last heard (keepalive_time_elapsed, net/ipv4/tcp.c).
            var at = Socket.LastHeard + wanted.Idle;
            ArmKeepalive(at > now ? at : now);
        }

        return new KeepaliveOutcome(TouchOutcome.Done, before, wanted);
    }

    /// <summary>The agent destroys the socket, unless it is not as it was judged.</summary>
    internal RecycleOutcome Destroy(Recycle recycle)
    {
        var (agent, generation, tracked) = (_world.Agent, _world.Agent.Generation, recycle.Connection);
        agent.Pass(_world.Host.Preemption());
        var now = agent.Now;
        if (agent.Generation != generation)
        {
            return new RecycleOutcome(RecycleResult.Failed, "the agent ended", null);
        }

        if (now > recycle.Until)
        {
            return new RecycleOutcome(RecycleResult.Late, "the agent was held up", null);
        }

        if (Ended is not null || !Recycle.IsAsJudged(tracked.Last, Socket.Observe(now)))
        {
            _world.Referee.Recovered();
            return new RecycleOutcome(Ended is not null ? RecycleResult.Vanished : RecycleResult.Recovered, null, null);
        }

        _world.Referee.Recycled(tracked, this, now);
        var switches = _world.Processes.Find(process => process.Identity == recycle.Owner?.Identity)?.Switches;
        End(now, $"{tracked.Judged.Verdict.ToName()}, recycled");
        return new RecycleOutcome(RecycleResult.Released, null, switches);
    }

    public override string ToString() => $"{Socket.Key.Local} of {Thread.Process.Identity.Pid}";
}
