using System.Net;
using System.Net.Sockets;
using Npgsql;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Measurement;
using Sidecar.Probes.Ladder;

namespace Sidecar.UnitTests.Measurement.Simulated;

/// <summary>The wire of a ladder in a world of packets: no socket, no thread, virtual time.</summary>
internal sealed class SimulatedNetwork : ILadderWire
{
    private readonly List<SimulatedConnection> _all = [];
    private readonly VirtualTime _time;
    private readonly TimeSpan _start;
    private readonly int _thread = Environment.CurrentManagedThreadId;

    public SimulatedNetwork(PathModel model)
    {
        Model = model;
        Random = new Random(model.Seed);
        _time = new VirtualTime(Random);
        _start = _time.Now;
        foreach (var flush in model.Flushes)
        {
            _time.After(TimeSpan.FromSeconds(flush), () => _all.ForEach(c => c.Forget()));
        }

        if (model.Places is not null)
        {
            _time.After(TimeSpan.FromSeconds(5), Visit);
        }
    }

    public PathModel Model { get; }

    public Random Random { get; }

    public TimeProvider Clock => _time;

    public double Seconds => (_time.Now - _start).TotalSeconds;

    /// <summary>Connections of the application that were refused, and would not have been without the ladder.</summary>
    public int Refused { get; private set; }

    public int MostAtOnce { get; private set; }

    /// <summary>Those that this side has open.</summary>
    public int Open => _all.Count(c => !c.IsDisposed);

    /// <summary>Those that the server holds.</summary>
    private int Held => _all.Count(c => c.IsHeldByServer);

    private bool IsDown => Model.Outage is var (from, to) && Seconds >= from && Seconds < to;

    public static (MeasurementReport? Report, string? Failure, SimulatedNetwork Network) Measure(PathModel model)
    {
        var network = new SimulatedNetwork(model);
        var target = new MeasurementTarget
        {
            Host = "10.0.2.2",
            Endpoint = new IPEndPoint(IPAddress.Parse("10.0.2.2"), 7000),
            Protocol = model.IsPostgreSql ? UpstreamProtocol.PostgreSql : UpstreamProtocol.Tcp,
            Dsn = model.IsPostgreSql ? new NpgsqlConnectionStringBuilder() : null,
            Payload = model is { HasPayload: true, IsPostgreSql: false } ? "PING"u8.ToArray() : default,
        };
        var settings = new Agent.Core.Judgement.IdleTimeout.LadderSettings { IsGuest = model.IsGuest, Max = TimeSpan.FromSeconds(model.Max) };
        try
        {
            var report = network._time.Run(() => Ladder.RunOverAsync(network, target, settings, null, null, CancellationToken.None), TimeSpan.FromDays(4));
            return (report, null, network);
        }
        catch (MeasurementException e)
        {
            return (null, e.Message, network);
        }
    }

    public async Task<LadderConnection> OpenAsync(CancellationToken cancellation) => await OpenAsync(Model.HasPayload, TimeSpan.FromSeconds(3), cancellation);

    public async Task<LadderConnection> OpenPlainAsync(CancellationToken cancellation) => await OpenAsync(hasPayload: false, TimeSpan.FromSeconds(3), cancellation);

    public async Task<bool> CanConnectAsync(int port, TimeSpan patience, CancellationToken cancellation)
    {
        try
        {
            (await ConnectAsync(patience, cancellation, port)).Dispose();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    public Task<HopFinding> FindHopAsync(LadderConnection forgotten, LadderConnection living, CancellationToken cancellation) =>
        Task.FromResult(new HopFinding(null, "no hops in this world"));

    public void After(TimeSpan delay, Action action) => _time.After(delay, action);

    public void After(double seconds, Action action) => _time.After(TimeSpan.FromSeconds(seconds), action);

    /// <summary>Whether a packet is lost by chance, or in an outage.</summary>
    public bool Loses()
    {
        if (Environment.CurrentManagedThreadId != _thread)
        {
            throw new InvalidOperationException("the world runs on one thread");
        }

        return IsDown || Random.NextDouble() < Model.Loss;
    }

    private async Task<LadderConnection> OpenAsync(bool hasPayload, TimeSpan patience, CancellationToken cancellation)
    {
        var connection = await ConnectAsync(patience, cancellation);
        LadderConnection opened = Model.IsPostgreSql
            ? new SimulatedSession(connection, _time)
            : new TcpLadderConnection(connection, connection, hasPayload ? "PING"u8.ToArray() : default, _time);
        if (Model.IsPostgreSql)
        {
            await opened.ExchangeAsync(patience, cancellation);
        }

        await opened.SettleAsync(cancellation);
        return opened;
    }

    private async Task<SimulatedConnection> ConnectAsync(TimeSpan patience, CancellationToken cancellation, int port = 0)
    {
        var roundTrip = TimeSpan.FromSeconds(Model.RoundTripSeconds);
        var waited = TimeSpan.Zero;
        for (var retransmission = TimeSpan.FromSeconds(1); Loses() || Loses() || !IsGivenUp(port); retransmission *= 2)
        {
            var wait = waited + retransmission > patience ? patience - waited : retransmission;
            await Task.Delay(wait, _time, cancellation);
            waited += wait;
            if (waited >= patience)
            {
                throw new SocketException((int)SocketError.TimedOut);
            }
        }

        await Task.Delay(roundTrip, _time, cancellation);
        var isFull = Model.Places is { } places && Held + Model.ApplicationPlaces >= places;
        if (isFull && Model.Refusal != Refusal.AcceptAndClose)
        {
            await Task.Delay(Model.Refusal == Refusal.Silence ? patience - waited : TimeSpan.Zero, _time, cancellation);
            throw new SocketException((int)(Model.Refusal == Refusal.Silence ? SocketError.TimedOut : SocketError.ConnectionRefused));
        }

        var connection = new SimulatedConnection(this, _all.Count + 1);
        _all.Add(connection);
        MostAtOnce = Math.Max(MostAtOnce, Open);
        if (isFull)
        {
            connection.EndByServer(Ending.Fin);
        }

        return connection;
    }

    /// <summary>A SYN from the port of a connection that the server holds is answered by an acknowledgement, and that by RST.</summary>
    private bool IsGivenUp(int port)
    {
        if (port == 0 || !_all[port - 1].IsHeldByServer)
        {
            return true;
        }

        if (!Loses())
        {
            _all[port - 1].BeGivenUp();
        }

        return !_all[port - 1].IsHeldByServer;
    }

    /// <summary>The application makes a short connection.</summary>
    private void Visit()
    {
        Refused += Held + Model.ApplicationPlaces >= Model.Places ? 1 : 0;
        After(0.97, Visit);
    }

    /// <summary>A session of PostgreSQL: its application data is a query.</summary>
    private sealed class SimulatedSession(SimulatedConnection connection, TimeProvider clock) : LadderConnection(connection, clock)
    {
        public override bool HasPayload => true;

        public override async Task<ExchangeOutcome> ExchangeAsync(TimeSpan patience, CancellationToken cancellation)
        {
            connection.TryReadInfo(out var before);
            if (before.State == OwnSocketInfo.Established)
            {
                await connection.SendAsync(default, cancellation);
            }

            var poll = TimeSpan.FromMilliseconds(15);
            for (var waited = TimeSpan.Zero; waited < patience; waited += poll)
            {
                connection.TryReadInfo(out var now);
                if (now.State != OwnSocketInfo.Established)
                {
                    return now.State == OwnSocketInfo.Closed ? ExchangeOutcome.Reset : connection.IsAnnounced ? ExchangeOutcome.PeerAnnounced : ExchangeOutcome.PeerClosed;
                }

                if (now.BytesReceived != before.BytesReceived)
                {
                    return ExchangeOutcome.Answered;
                }

                await Task.Delay(poll, Clock, cancellation);
            }

            // As the library's caller does with a query that nobody answers.
            connection.AbortOnClose();
            connection.Shutdown();
            return ExchangeOutcome.Silent;
        }

        private TimeProvider Clock { get; } = clock;

        protected override ValueTask CloseAsync()
        {
            connection.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
