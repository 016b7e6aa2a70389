using System.Net.Sockets;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.Values;

namespace Sidecar.UnitTests.Measurement.Simulated;

/// <summary>
/// A TCP connection in a simulated network: the client's kernel, the routers' states and the server's. What the ladder sees of it
/// is what TCP_INFO would say.
/// </summary>
internal sealed class SimulatedConnection : ILadderSocket, IPayloadStream
{
    private const byte CloseWait = 8;
    private const int TimedOut = 110;

    private static ulong _cookies = 1UL << 60;

    private readonly SimulatedNetwork _network;
    private readonly State[] _routers;
    private readonly State? _behind;
    private byte _state = OwnSocketInfo.Established;
    private uint _in = 1;
    private uint _out = 2;
    private ulong _received;
    private double _heard;
    private int _error;
    private bool _abort;

    private int _exchange;
    private int _answered;
    private int _acknowledged;

    private bool _keepalive;
    private int _keepIdle = 7200;
    private int _keepInterval = 75;
    private int _keepCount = 9;
    private int _keepProbes;
    private int _keepTimer;

    private double _serverData;
    private double _serverHeard;
    private int _serverProbes;
    private int _serverSaw;

    public SimulatedConnection(SimulatedNetwork network, int port)
    {
        LocalPort = port;
        _network = network;
        _routers = [.. network.Model.Routers.Select(r => new State(r, network))];
        _behind = network.Model is { HasProxy: true, BehindProxy: { } behind } ? new State(behind, network) : null;
        _heard = _serverData = _serverHeard = Now;
        if (network.Model.ServerLimit is { } limit)
        {
            network.After(limit, CheckServerLimit);
        }

        if (network.Model.ServerKeepalive is { } every)
        {
            network.After(every, CheckServerKeepalive);
        }
    }

    public SocketCookie Cookie { get; } = new(++_cookies);

    public int LocalPort { get; }

    public bool IsDisposed { get; private set; }

    public bool IsHeldByServer { get; private set; } = true;

    public bool IsAnnounced { get; private set; }

    private double Now => _network.Seconds;

    private double RoundTrip => _network.Model.RoundTripSeconds;

    /// <summary>The server has been told that the client knows nothing of it.</summary>
    public void BeGivenUp() => IsHeldByServer = false;

    /// <summary>All routers forget it.</summary>
    public void Forget()
    {
        foreach (var router in _routers)
        {
            router.IsGone = true;
        }
    }

    public bool TryReadInfo(out OwnSocketInfo info)
    {
        info = new OwnSocketInfo(_state, TimeSpan.FromSeconds(RoundTrip), _received, _in, _out, (uint)(_exchange - _acknowledged), TimeSpan.FromSeconds(Now - _heard));
        return !IsDisposed;
    }

    public int TakeError()
    {
        var error = _error;
        _error = 0;
        return error;
    }

    public void AbortOnClose() => _abort = true;

    public void Shutdown() => Close();

    public void Dispose()
    {
        Close();
        IsDisposed = true;
    }

    public Task DrainAsync(CancellationToken cancellation) => Task.CompletedTask;

    public void FireKeepalive()
    {
        (_keepInterval, _keepCount, _keepIdle) = (1, 100, 1);
        StartKeepalive(0.01);
    }

    public void KeepAliveEvery(TimeSpan interval)
    {
        _keepInterval = _keepIdle = Math.Max(1, (int)interval.TotalSeconds);
        _keepCount = 20;
        StartKeepalive(Math.Max(0.01, _heard + _keepIdle - Now));
    }

    public void StopKeepalive()
    {
        _keepalive = false;
        _keepTimer++;
    }

    public Task SendAsync(ReadOnlyMemory<byte> payload, CancellationToken cancellation)
    {
        if (_state != OwnSocketInfo.Established)
        {
            throw new SocketException((int)(_state == OwnSocketInfo.Closed ? SocketError.ConnectionReset : SocketError.Shutdown));
        }

        Transmit(++_exchange, 0.2 + (2 * RoundTrip), 0);
        return Task.CompletedTask;
    }

    /// <summary>The server ends it: its last words are repeated until the client has heard them, or the server gives up.</summary>
    public void EndByServer(Ending ending)
    {
        if (IsHeldByServer)
        {
            IsHeldByServer = false;
            SendEnd(ending, 0.2 + (2 * RoundTrip), 0);
        }
    }

    private void SendEnd(Ending ending, double timeout, int attempt)
    {
        if (_state != OwnSocketInfo.Established)
        {
            return;
        }

        if (ToClient(isData: ending == Ending.Announced))
        {
            _network.After(RoundTrip / 2, () => Receive(ending));
        }
        else if (attempt < 8 && ending != Ending.Reset)
        {
            _network.After(timeout, () => SendEnd(ending, timeout * 2, attempt + 1));
        }
    }

    private void Receive(Ending ending)
    {
        if (_state != OwnSocketInfo.Established)
        {
            return;
        }

        Hear();
        if (ending == Ending.Reset)
        {
            _state = OwnSocketInfo.Closed;
            _error = 104;
            return;
        }

        _out++;
        _state = CloseWait;
        IsAnnounced = ending == Ending.Announced;
        _received += IsAnnounced ? 100u : 0;
    }

    private void Hear()
    {
        _in++;
        _heard = Now;
        _keepProbes = 0;
    }

    private void Close()
    {
        if (_state == OwnSocketInfo.Established && IsHeldByServer && _routers.All(r => r.Lives(Now)) && !(_abort && _network.Loses()))
        {
            IsHeldByServer = false;
        }

        _state = OwnSocketInfo.Closed;
        StopKeepalive();
    }

    private void StartKeepalive(double delay)
    {
        _keepalive = true;
        var timer = ++_keepTimer;
        _network.After(delay, () => KeepAlive(timer));
    }

    private void KeepAlive(int timer)
    {
        if (!_keepalive || timer != _keepTimer || _state != OwnSocketInfo.Established)
        {
            return;
        }

        var idle = Now - _heard;
        if (_exchange > _acknowledged || (_keepProbes == 0 && idle < _keepIdle - 0.001))
        {
            StartKeepalive(Math.Max(0.01, _keepIdle - idle));
            return;
        }

        if (_keepProbes >= _keepCount)
        {
            (_state, _error) = (OwnSocketInfo.Closed, TimedOut);
            return;
        }

        _keepProbes++;
        _out++;
        if (ToServer(isData: false) && (_network.Model.HasProxy || ServerHears()) && ToClient(isData: false))
        {
            _network.After(RoundTrip, Acknowledge);
        }

        StartKeepalive(_keepInterval);
    }

    private void Acknowledge()
    {
        if (_state == OwnSocketInfo.Established)
        {
            Hear();
        }
    }

    /// <summary>A segment of data, and again until it is acknowledged.</summary>
    private void Transmit(int exchange, double timeout, int attempt)
    {
        if (_acknowledged >= exchange || _state != OwnSocketInfo.Established)
        {
            return;
        }

        if (attempt == 15)
        {
            (_state, _error) = (OwnSocketInfo.Closed, TimedOut);
            return;
        }

        _out++;
        if (ToServer(isData: true))
        {
            Arrive(exchange);
        }

        _network.After(timeout, () => Transmit(exchange, timeout * 2, attempt + 1));
    }

    /// <summary>Data has come to the server, or to the proxy before it.</summary>
    private void Arrive(int exchange)
    {
        if (_network.Model.HasProxy)
        {
            if (ToClient(isData: false))
            {
                _network.After(RoundTrip, () => AcknowledgeData(exchange));
            }

            if (_behind is { } behind && !behind.Passes(Now, isData: true, isClients: true))
            {
                return;
            }
        }

        if (!ServerHears())
        {
            return;
        }

        _serverData = Now;
        if (exchange > _serverSaw)
        {
            _serverSaw = exchange;
            Answer(exchange, 0.2 + (2 * RoundTrip), 0);
        }
        else if (ToClient(isData: false))
        {
            _network.After(RoundTrip, () => AcknowledgeData(exchange));
        }
    }

    private void AcknowledgeData(int exchange)
    {
        if (_state == OwnSocketInfo.Established)
        {
            Hear();
            _acknowledged = Math.Max(_acknowledged, exchange);
        }
    }

    /// <summary>The server's answer, and again until the client acknowledges it.</summary>
    private void Answer(int exchange, double timeout, int attempt)
    {
        if (_answered >= exchange || attempt == 15 || !IsHeldByServer)
        {
            return;
        }

        if (ToClient(isData: true))
        {
            _network.After(RoundTrip, () =>
            {
                if (_state != OwnSocketInfo.Established)
                {
                    return;
                }

                _received += exchange > _answered && _acknowledgedBytes < exchange ? 10u : 0;
                _acknowledgedBytes = Math.Max(_acknowledgedBytes, exchange);
                AcknowledgeData(exchange);
                _out++;
                if (ToServer(isData: false))
                {
                    _answered = exchange;
                }
            });
        }

        _network.After(timeout + RoundTrip, () => Answer(exchange, timeout * 2, attempt + 1));
    }

    private int _acknowledgedBytes;

    /// <summary>A packet of the client's: whether it passes. A router may answer it by RST.</summary>
    private bool ToServer(bool isData)
    {
        foreach (var router in _routers)
        {
            if (!router.Passes(Now, isData, isClients: true))
            {
                if (router.Model.Ending == Ending.Reset && !_network.Loses())
                {
                    _network.After(RoundTrip, () => Receive(Ending.Reset));
                }

                return false;
            }
        }

        return !_network.Loses();
    }

    private bool ToClient(bool isData) => _routers.Reverse().All(r => r.Passes(Now, isData, isClients: false)) && !_network.Loses();

    /// <summary>A packet has come to the server: whether it answers. One that holds nothing sends RST.</summary>
    private bool ServerHears()
    {
        if (IsHeldByServer)
        {
            _serverHeard = Now;
            _serverProbes = 0;
            return true;
        }

        if (ToClient(isData: false))
        {
            _network.After(RoundTrip, () => Receive(Ending.Reset));
        }

        return false;
    }

    private void CheckServerLimit()
    {
        var left = _serverData + _network.Model.ServerLimit!.Value - Now;
        if (!IsHeldByServer)
        {
            return;
        }

        if (left > 0.001)
        {
            _network.After(left, CheckServerLimit);
        }
        else if (_behind is null || _behind.Passes(Now, isData: false, isClients: false))
        {
            EndByServer(_network.Model.ServerEnding);
        }
        else
        {
            IsHeldByServer = false;
        }
    }

    private void CheckServerKeepalive()
    {
        var every = _network.Model.ServerKeepalive!.Value;
        if (!IsHeldByServer || IsDisposed)
        {
            return;
        }

        var left = _serverHeard + every - Now;
        if (left > 0.001 && _serverProbes == 0)
        {
            _network.After(left, CheckServerKeepalive);
            return;
        }

        if (++_serverProbes > 3)
        {
            IsHeldByServer = false;
            return;
        }

        if (ToClient(isData: false) && _state == OwnSocketInfo.Established)
        {
            _in++;
            _out++;
            if (ToServer(isData: false))
            {
                _serverHeard = Now;
                _serverProbes = 0;
            }
        }

        _network.After(_serverProbes == 0 ? every : Math.Min(every, 5), CheckServerKeepalive);
    }

    /// <summary>A router's state of this connection.</summary>
    private sealed class State
    {
        private readonly SimulatedNetwork _network;
        private double _last;
        private double _timeout;

        public State(Router model, SimulatedNetwork network)
        {
            (Model, _network) = (model, network);
            Refresh(network.Seconds);
        }

        public Router Model { get; }

        public bool IsGone { get; set; }

        public bool Lives(double now) => !(IsGone = IsGone || now - _last > _timeout);

        public bool Passes(double now, bool isData, bool isClients)
        {
            if (!Lives(now))
            {
                return false;
            }

            if ((isData || !Model.DataOnly) && Model.Counted switch { Counted.Client => isClients, Counted.Server => !isClients, _ => true })
            {
                Refresh(now);
            }

            return true;
        }

        private void Refresh(double now)
        {
            _last = now;
            _timeout = Model.Shortest + (_network.Random.NextDouble() * (Model.Longest - Model.Shortest));
        }
    }
}
