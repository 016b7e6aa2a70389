using Sidecar.Agent.Tracking;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;

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
    private bool _tailLossProbed;
    private int _serverRetransmissions;
    private int _keepalivesMissed;
    private int _keepalive;
    private TimeSpan _windowOpensAt;

    internal SimulatedConnection(World world, SimulatedPath path, SimulatedThread thread, SocketKey key, uint inode, TimeSpan now)
    {
        _world = world;
        _dice = world.Dice;
        Path = path;
        Thread = thread;
        Established = now;
        EntryMade = now;
        EntrySeen = now;
        Socket = new ClientSocket(key, inode, now, path.RoundTrip);
        if (world.ServerKeepalive > TimeSpan.Zero)
        {
            world.Queue.Add(now + world.ServerKeepalive, this, ServerKeepalive);
        }

        if (world.Keepalive > TimeSpan.Zero)
        {
            ArmKeepalive(now + world.Keepalive);
        }
    }

    internal SimulatedPath Path { get; }

    internal SimulatedThread Thread { get; }

    internal ClientSocket Socket { get; }

    internal TimeSpan Established { get; }

    /// <summary>When the router's entry was made, the beginning of time where there is none, and when it last saw a packet.</summary>
    internal TimeSpan EntryMade { get; set; }

    internal TimeSpan EntrySeen { get; set; }

    /// <summary>When the client's end closed; null while it is open.</summary>
    internal TimeSpan? Ended { get; private set; }

    /// <summary>What the agent knows of it; null before it first saw it.</summary>
    internal TrackedConnection? Tracked { get; set; }

    /// <summary>The client's socket has changed since the agent last looked.</summary>
    internal bool Dirty { get; set; }

    /// <summary>When the server's end went for another reason than a restart.</summary>
    internal bool ServerClosed { get; private set; }

    internal bool ServerHasIt => !ServerClosed && Established > Path.ServerLostAt;

    internal bool IsForgotten(TimeSpan now) => EntryMade <= Path.TableLostAt || (Path.Timeout is { } timeout && now - EntrySeen >= timeout);

    /// <summary>The truth: left alone, and with the path up, it would go on.</summary>
    internal bool IsLive(TimeSpan now) => Ended is null && ServerHasIt && (Path.Router == Forgetful.PicksUp || !IsForgotten(now));

    /// <summary>Data of the client's is out on it.</summary>
    internal bool IsUnanswered => Ended is null && Socket.Unacknowledged > 0;

    internal void Request(TimeSpan now)
    {
        _request++;
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
            case KeepaliveFires:
                Keepalive(now);
                break;
            case KeepaliveAnswerArrives when version == _keepalive:
                Touch(now);
                Socket.ProbeAnswered(now);
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
        ServerClosed = true;
        if (Path.Backward(this, now) == Fate.Delivered)
        {
            _world.Queue.Add(now + (Path.RoundTrip / 2), this, ResetArrives);
        }
    }

    /// <summary>To be called before anything changes in the client's socket.</summary>
    private void Touch(TimeSpan now) => _world.Touched(this, now);

    private void Transmit(TimeSpan now)
    {
        switch (Path.Forward(this, now))
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
            ServerClosed = true;
            return;
        }

        if (request != _request)
        {
            return;
        }

        if (_received == request)
        {
            // A repetition: acknowledged at once.
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
        if (arrives)
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
                ServerClosed = true;
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
            ServerClosed = true;
            return;
        }

        _world.Queue.Add(now + (answered ? _world.ServerKeepalive : TimeSpan.FromSeconds(10)), this, ServerKeepalive);
    }

    private void ArmKeepalive(TimeSpan at)
    {
        Socket.KeepaliveAt = at;
        _world.Queue.Add(at, this, KeepaliveFires);
    }

    /// <summary>The application's own keepalive: a probe when the peer was not heard of for so long, then one per interval.</summary>
    private void Keepalive(TimeSpan now)
    {
        if (Socket.Unacknowledged > 0 || Socket.NotSent > 0)
        {
            ArmKeepalive(now + _world.Keepalive);
            return;
        }

        if (now - Socket.LastHeard < _world.Keepalive)
        {
            ArmKeepalive(Socket.LastHeard + _world.Keepalive);
            return;
        }

        if (Socket.Probes >= _world.KeepaliveCount)
        {
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

        ArmKeepalive(now + _world.KeepaliveInterval);
    }

    public override string ToString() => $"{Socket.Key.Local} of {Thread.Process.Identity.Pid}";
}
