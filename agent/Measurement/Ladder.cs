using System.Diagnostics;
using System.Net.Sockets;
using Npgsql;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// Carries out a <see cref="LadderPlan"/> with connections of our own: opens them, lets them idle, tests them when
/// their gap has come, and tells a lost connection from an outage by a fresh one. Beside the idling connections two
/// more are kept for comparison: one that only keepalives refresh and one that application data refreshes.
/// </summary>
// Over 400 lines: because opening, idling and testing are still one; to be split.
internal sealed class Ladder : IDisposable
{
    // The least that measures anything: the two for comparison and two that idle.
    private const int ComparisonSlots = 2;
    private const int LeastSlots = ComparisonSlots + 2;

    private static readonly TimeSpan ScanInterval = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan ConnectPatience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan FreshPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan FreshValidity = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ServerFirstPatience = TimeSpan.FromSeconds(1.5);
    private static readonly TimeSpan OutagePatience = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan HopPatience = TimeSpan.FromSeconds(8);
    private static readonly TimeSpan CleanUpPatience = TimeSpan.FromSeconds(8);

    private readonly MeasurementTarget _target;
    private readonly LadderSessions? _sessions;
    private readonly Action<LadderProgress>? _progress;
    private readonly Action<GapObservation>? _learnt;
    private readonly long _start = Stopwatch.GetTimestamp();
    private readonly PathEstimator _estimator = new();
    private readonly Dictionary<int, Rung> _idlers = [];
    private readonly List<Task> _background = [];
    private readonly List<GapObservation> _observations = [];
    private readonly List<TriedGap> _gaps = [];
    private readonly List<string> _notes = [];
    private readonly List<LossKind> _losses = [];
    private readonly List<TimeSpan> _peerRefreshes = [];
    private readonly SemaphoreSlim _payloadGate = new(1, 1);

    private LadderSettings _settings;
    private LadderConnection? _keepaliveOnly;
    private LadderConnection? _refreshed;
    private bool _refreshedLives;
    private TimeSpan _keepaliveInterval;
    private long _refreshedAt;
    private int _lastId;
    private int _connections;
    private int _idling;
    private int _freshConnects;
    private long _freshAt;
    private long? _outageSince;
    private bool? _serverFirst;
    private Rung? _forgotten;
    private HopFinding? _hop;
    private bool _secondOpinion;

    private Ladder(MeasurementTarget target, LadderSettings settings, Action<LadderProgress>? progress, Action<GapObservation>? learnt)
    {
        _target = target;
        _settings = settings;
        _progress = progress;
        _learnt = learnt;
        _estimator.Add(new GapObservation(settings.Survived, GapOutcome.Survived, DateTimeOffset.UtcNow, EvidenceSource.Passive));
        if (target.Protocol == UpstreamProtocol.PostgreSql)
        {
            _sessions = new LadderSessions(target.Network, target.Dsn ?? throw new MeasurementException("protocol postgresql needs a DSN file: an unauthenticated session is closed by the server"), target.Host, target.Endpoint);
        }
    }

    /// <summary>
    /// Measures until the bounds are close enough, or until it is cancelled; then it returns what was learnt, marked
    /// as interrupted. All connections are closed and no session is left on the server when it returns.
    /// </summary>
    /// <param name="target">What to measure.</param>
    /// <param name="settings">How far and how closely.</param>
    /// <param name="progress">Told what is known, several times a second.</param>
    /// <param name="learnt">Told each piece of evidence about the path as it comes.</param>
    /// <param name="cancellation">Ends it early.</param>
    /// <exception cref="MeasurementException">Nothing could be measured: no connection, wrong credentials, no free slots.</exception>
    public static async Task<MeasurementReport> RunAsync(
        MeasurementTarget target,
        LadderSettings settings,
        Action<LadderProgress>? progress,
        Action<GapObservation>? learnt,
        CancellationToken cancellation)
    {
        using var ladder = new Ladder(target, settings, progress, learnt);
        var interrupted = false;
        try
        {
            await ladder.BeginAsync(cancellation);
            await ladder.ClimbAsync(cancellation);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            interrupted = true;
        }
        finally
        {
            await ladder.EndAsync(interrupted);
        }

        return ladder.MakeReport(interrupted);
    }

    /// <summary>Lets a single connection idle for one gap.</summary>
    /// <returns>What became of it; null where the path was down, or the connection ended for a reason of its own.</returns>
    /// <exception cref="MeasurementException">No connection could be had.</exception>
    public static async Task<GapObservation?> TryGapAsync(MeasurementTarget target, TimeSpan gap, CancellationToken cancellation)
    {
        using var ladder = new Ladder(target, new LadderSettings(), null, null);
        try
        {
            await using var connection = await ladder.OpenFirstAsync(cancellation);
            await connection.SettleAsync(cancellation);
            for (var left = gap - connection.Age; left > TimeSpan.Zero; left = gap - connection.Age)
            {
                await Task.Delay(left < ScanInterval * 4 ? left : ScanInterval * 4, cancellation);
                if (connection.Scan(out _) == IdleScan.Ended)
                {
                    break;
                }
            }

            var test = await connection.TestAsync(cancellation);
            if (test is { Lost: null, Disturbed: false, Survived: { } survived })
            {
                return new GapObservation(survived, GapOutcome.Survived, DateTimeOffset.UtcNow, EvidenceSource.Ladder, GapObservation.LadderWeight);
            }

            connection.Socket.AbortOnClose();
            return test.Lost is { } lost && (test.Loss != LossKind.PeerClosed || connection.HasPayload) && await ladder.PathIsUpAsync(cancellation)
                ? new GapObservation(lost, GapOutcome.Lost, DateTimeOffset.UtcNow, EvidenceSource.Ladder, GapObservation.LadderWeight)
                : null;
        }
        finally
        {
            if (ladder._sessions is { } sessions)
            {
                await sessions.LeaveNothingAsync(CleanUpPatience);
            }
        }
    }

    public void Dispose() => _payloadGate.Dispose();

    private TimeSpan Elapsed => Stopwatch.GetElapsedTime(_start);

    private async Task BeginAsync(CancellationToken cancellation)
    {
        // Opened first, so that each of the two has gone longer without the other kind of refreshment than any gap.
        _keepaliveOnly = await OpenFirstAsync(cancellation);
        if (_keepaliveOnly is PostgreSqlLadderConnection session)
        {
            var slots = await LadderSessions.CountSlotsAsync(session, cancellation);
            var allowed = (int)((slots.Free + 1) * _target.SlotShare);
            if (allowed < LeastSlots)
            {
                throw new MeasurementException(
                    $"{_target}: no ladder: {slots.Free} of {slots.Total} connection slots are free ({slots.Limit}); "
                    + $"{_target.SlotShare:P0} of them are fewer than the {LeastSlots} that a ladder needs");
            }

            _settings = _settings with { Slots = Math.Min(_settings.Slots, allowed - ComparisonSlots) };
            await session.SettleAsync(cancellation);
        }

        _keepaliveInterval = TimeSpan.FromSeconds(1);
        _keepaliveOnly.Socket.KeepAliveEvery(_keepaliveInterval);
        if (_keepaliveOnly.HasPayload)
        {
            _refreshed = await OpenAsync(cancellation);
            _refreshedLives = true;
            _refreshedAt = Stopwatch.GetTimestamp();
        }
    }

    private async Task ClimbAsync(CancellationToken cancellation)
    {
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            await CollectAsync(cancellation);
            await ScanAsync(cancellation);

            var estimate = _estimator.Estimate(DateTimeOffset.UtcNow);
            var step = LadderPlan.Next(estimate.Lower, estimate.Upper, Idlers(), _idling, _settings);
            if (step.Finished)
            {
                break;
            }

            CallWitnesses(estimate, cancellation);
            foreach (var id in step.Useless.Where(i => _idlers.TryGetValue(i, out var rung) && !rung.IsWitness))
            {
                await DropAsync(id, lost: true);
            }

            foreach (var rung in _idlers.Values)
            {
                rung.Target = null;
            }

            foreach (var target in step.Targets.Where(t => _idlers.ContainsKey(t.Id)))
            {
                _idlers[target.Id].Target = target.Gap;
            }

            if (step.Open > 0)
            {
                await OpenIdlersAsync(step.Open, cancellation);
            }

            foreach (var rung in _idlers.Values.Where(r => r.Test is null && r.Target is { } gap && r.Connection.Age >= gap))
            {
                rung.Begin(cancellation);
            }

            Refresh(estimate.Lower, cancellation);
            Report(estimate);
            await PauseAsync(cancellation);
        }

        // A witness or the server's word may still be on its way: they are heard, in a few seconds at most.
        CallWitnesses(_estimator.Estimate(DateTimeOffset.UtcNow), cancellation);
        await Task.WhenAll(_background).WaitAsync(cancellation);
        await CollectAsync(cancellation);
    }

    private Idler[] Idlers() => [.. _idlers.Where(i => !i.Value.IsWitness).Select(i => new Idler(i.Key, i.Value.Connection.Age, i.Value.TestedAt, i.Value.Target))];

    private async Task PauseAsync(CancellationToken cancellation)
    {
        var pause = ScanInterval;
        foreach (var rung in _idlers.Values.Where(r => r.Test is null && r.Target is not null))
        {
            var left = rung.Target!.Value - rung.Connection.Age;
            pause = left < pause ? left : pause;
        }

        if (pause > TimeSpan.Zero)
        {
            var tests = _idlers.Values.Where(r => r.Test is not null).Select(r => (Task)r.Test!);
            await Task.WhenAny(tests.Append(Task.Delay(pause, cancellation)));
        }
    }

    /// <summary>Takes in the verdicts of the tests that have ended.</summary>
    private async Task CollectAsync(CancellationToken cancellation)
    {
        foreach (var (id, rung) in _idlers.Where(i => i.Value.Test is { IsCompleted: true }).ToArray())
        {
            var test = await rung.Test!;
            if (test.Lost is null && !test.Disturbed)
            {
                Learn(test.Survived, null);
                rung.Restart();
                if (rung.IsWitness)
                {
                    await DropAsync(id);
                }

                continue;
            }

            await DropAsync(id, lost: true);
            if (test.Disturbed)
            {
                Note("connections were ended by the server's administrator or by a restart; those say nothing about the path");
                continue;
            }

            // A loss counts only while a fresh connection works: otherwise it is an outage.
            if (await PathIsUpAsync(cancellation))
            {
                _losses.Add(test.Loss!.Value);
                // A server that nobody logs in to closes by its own clock: that is no evidence about the path.
                // It sees no keepalives, so that clock has run since the connection was made.
                var isServersOwn = test.Loss == LossKind.PeerClosed && !rung.Connection.HasPayload;
                if (isServersOwn)
                {
                    Learn(test.Survived + rung.Spent, test.Lost + rung.Spent, isEvidence: false);
                }
                else
                {
                    Learn(test.Survived, test.Lost);
                }
            }
            else
            {
                Note("the endpoint could not be reached for a while; what was lost in that time was not counted");
            }
        }
    }

    /// <summary>Scans at what idles: ends that came by themselves, and refreshment by the peer.</summary>
    private async Task ScanAsync(CancellationToken cancellation)
    {
        var ended = new List<Rung>();
        foreach (var rung in _idlers.Values.Where(r => r.Test is null))
        {
            switch (rung.Connection.Scan(out var age))
            {
                case IdleScan.Ended:
                    ended.Add(rung);
                    break;
                case IdleScan.Refreshed when age > TimeSpan.FromSeconds(2):
                    HearPeer(age);
                    break;
                default:
                    break;
            }
        }

        // A path ends connections of one age. One moment for all ages is a server that stopped.
        if (ended.Count > 1)
        {
            var ages = ended.Select(r => r.Connection.Age).ToArray();
            if (ages.Max() - ages.Min() > TimeSpan.FromSeconds(1) + (ages.Max() * 0.1))
            {
                Note("connections of all ages ended at the same moment (a server restart); those say nothing about the path");
                foreach (var id in _idlers.Where(i => ended.Contains(i.Value)).Select(i => i.Key).ToArray())
                {
                    await DropAsync(id);
                }

                return;
            }
        }

        foreach (var rung in ended)
        {
            rung.Begin(cancellation);
        }
    }

    private void HearPeer(TimeSpan age)
    {
        _peerRefreshes.Add(age);
        var least = _peerRefreshes.Min();
        if (_peerRefreshes.Count(r => r <= least * 1.25) < 2 || _settings.Max <= least - ScanInterval)
        {
            return;
        }

        _settings = _settings with { Max = least - (2 * ScanInterval) };
        Note($"the server sends something on idle connections after {Duration.ForPeople(least)} (its own keepalives): longer gaps do not occur on this path");
    }

    private void Learn(TimeSpan? survived, TimeSpan? lost, bool isEvidence = true)
    {
        foreach (var (gap, outcome) in new[] { (survived, GapOutcome.Survived), (lost, GapOutcome.Lost) })
        {
            if (gap is not { } value || value <= TimeSpan.Zero)
            {
                continue;
            }

            var observation = new GapObservation(value, outcome, DateTimeOffset.UtcNow, EvidenceSource.Ladder, GapObservation.LadderWeight);
            if (isEvidence)
            {
                _observations.Add(observation);
                _learnt?.Invoke(observation);
            }

            _gaps.Add(new TriedGap(value, outcome == GapOutcome.Survived));
            _estimator.Add(observation);
        }
    }

    /// <summary>
    /// After a loss the connections that are older than it have one use left: on one the server speaks first, and one
    /// is tested as a second opinion while there has been one loss only.
    /// </summary>
    private void CallWitnesses(IdleTimeoutEstimate estimate, CancellationToken cancellation)
    {
        if (estimate.Upper is not { } upper || (_forgotten is not null && _secondOpinion))
        {
            return;
        }

        foreach (var rung in _idlers.Values.Where(r => r.Test is null && !r.IsWitness && r.Connection.Age >= upper).ToArray())
        {
            if (rung.Connection.Scan(out _) != IdleScan.Idle)
            {
                continue;
            }

            if (_forgotten is null)
            {
                // Nothing is sent on it from this side, so that its probes can find out where it is lost.
                _forgotten = rung;
                rung.IsWitness = true;
                if (_refreshedLives && rung.Connection is PostgreSqlLadderConnection idle && _refreshed is PostgreSqlLadderConnection speaker)
                {
                    _background.Add(LetServerSpeakAsync(speaker, idle, cancellation));
                }
            }
            else if (!_secondOpinion && _losses.Count == 1)
            {
                _secondOpinion = true;
                rung.IsWitness = true;
                rung.Begin(cancellation);
                _background.Add(rung.Test!);
            }
        }
    }

    private async Task LetServerSpeakAsync(PostgreSqlLadderConnection speaker, PostgreSqlLadderConnection idle, CancellationToken cancellation)
    {
        await _payloadGate.WaitAsync(cancellation);
        try
        {
            _serverFirst = await speaker.NotifyAsync(idle, ServerFirstPatience, cancellation);
        }
        finally
        {
            _payloadGate.Release();
        }
    }

    /// <summary>Keeps the two connections for comparison refreshed, at a third of the shortest time that may matter.</summary>
    private void Refresh(TimeSpan lower, CancellationToken cancellation)
    {
        var interval = TimeSpan.FromSeconds(Math.Max(1, Math.Floor(lower.TotalSeconds / 3)));
        if (interval > _keepaliveInterval * 2)
        {
            _keepaliveInterval = interval;
            _keepaliveOnly!.Socket.KeepAliveEvery(interval);
        }

        if (_refreshed is not null && _refreshedLives && Stopwatch.GetElapsedTime(_refreshedAt) >= _keepaliveInterval && _payloadGate.Wait(0, cancellation))
        {
            _refreshedAt = Stopwatch.GetTimestamp();
            _background.RemoveAll(t => t.IsCompletedSuccessfully);
            _background.Add(ExchangeAsync(_refreshed, cancellation));
        }

        async Task ExchangeAsync(LadderConnection connection, CancellationToken stop)
        {
            try
            {
                _refreshedLives = await connection.ExchangeAsync(TimeSpan.FromSeconds(3), stop) == ExchangeOutcome.Answered;
            }
            finally
            {
                _payloadGate.Release();
            }
        }
    }

    private async Task OpenIdlersAsync(int count, CancellationToken cancellation)
    {
        try
        {
            var opened = await Task.WhenAll(Enumerable.Range(0, count).Select(_ => TryOpenAsync(cancellation)));
            foreach (var connection in opened.OfType<LadderConnection>())
            {
                _idling++;
                _idlers.Add(++_lastId, new Rung(connection));
            }

            if (opened.All(c => c is null) && _idlers.Count == 0)
            {
                await WaitOutAsync(cancellation);
            }
            else
            {
                _outageSince = null;
            }
        }
        catch (MeasurementException) when (_idlers.Count > 0)
        {
            // The server has filled up meanwhile: the ladder goes on with what it has.
            _settings = _settings with { Slots = Math.Max(2, _idlers.Count) };
        }
    }

    private async Task WaitOutAsync(CancellationToken cancellation)
    {
        _outageSince ??= Stopwatch.GetTimestamp();
        if (Stopwatch.GetElapsedTime(_outageSince.Value) > OutagePatience)
        {
            throw new MeasurementException($"{_target}: cannot be reached any more; given up after {Duration.ForPeople(OutagePatience)}");
        }

        await Task.Delay(ConnectPatience, cancellation);
    }

    private async Task<LadderConnection> OpenFirstAsync(CancellationToken cancellation)
    {
        try
        {
            return await OpenAsync(cancellation);
        }
        catch (SocketException e)
        {
            throw new MeasurementException($"{_target}: cannot connect: {e.Message}");
        }
        catch (NpgsqlException e)
        {
            throw new MeasurementException($"{_target}: cannot open a session: {e.InnerException?.Message ?? e.Message}");
        }
    }

    private async Task<LadderConnection?> TryOpenAsync(CancellationToken cancellation)
    {
        try
        {
            return await OpenAsync(cancellation);
        }
        catch (Exception e) when (e is SocketException or NpgsqlException)
        {
            return null;
        }
    }

    private async Task<LadderConnection> OpenAsync(CancellationToken cancellation)
    {
        try
        {
            LadderConnection connection = _sessions is null
                ? await TcpLadderConnection.OpenAsync(_target.Network, _target.Endpoint, _target.Payload, ConnectPatience, cancellation)
                : await _sessions.OpenAsync(cancellation);
            Interlocked.Increment(ref _connections);
            return connection;
        }
        catch (PostgresException e) when (e.SqlState is "53300" or "08004")
        {
            throw new MeasurementException($"{_target}: no ladder: the server is at its connection limit ({e.MessageText})");
        }
    }

    private async Task<bool> PathIsUpAsync(CancellationToken cancellation)
    {
        if (_freshAt != 0 && Stopwatch.GetElapsedTime(_freshAt) < FreshValidity)
        {
            return true;
        }

        // Two tries: a single SYN may be lost.
        for (var attempt = 0; attempt < 2; attempt++)
        {
            _freshConnects++;
            if (await TcpLadderConnection.CanConnectAsync(_target.Network, _target.Endpoint, FreshPatience, cancellation))
            {
                _freshAt = Stopwatch.GetTimestamp();
                return true;
            }
        }

        return false;
    }

    private async Task DropAsync(int id, bool lost = false)
    {
        if (!_idlers.Remove(id, out var rung))
        {
            return;
        }

        if (rung.Test is Task test)
        {
            await test.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        // A forgotten connection would linger as an orphan that retransmits its FIN; a living one says goodbye.
        if (lost || rung.IsWitness || (_estimator.Estimate(DateTimeOffset.UtcNow) is { Upper: not null } known && rung.Connection.Age > known.Lower))
        {
            rung.Connection.Socket.AbortOnClose();
        }

        await rung.Connection.DisposeAsync();
    }

    private void Report(IdleTimeoutEstimate estimate)
    {
        if (_progress is null)
        {
            return;
        }

        var oldest = _idlers.Values.Select(r => r.Connection.Age).DefaultIfEmpty(TimeSpan.Zero).Max();
        var left = estimate.Upper is null
            ? _settings.Max - oldest
            : _idlers.Values.Where(r => r.Target is not null).Select(r => r.Target!.Value - r.Connection.Age).DefaultIfEmpty(TimeSpan.Zero).Max();
        _progress(new LadderProgress(Elapsed, estimate.Lower, estimate.Upper, _idlers.Count, left > TimeSpan.Zero ? left : TimeSpan.Zero));
    }

    private void Note(string note)
    {
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }
    }

    /// <summary>What the connections for comparison say; then everything is closed.</summary>
    private async Task EndAsync(bool interrupted)
    {
        using var limit = new CancellationTokenSource(CleanUpPatience);
        await Task.WhenAll(_background).WaitAsync(CleanUpPatience).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_estimator.Estimate(DateTimeOffset.UtcNow).Upper is not null && _keepaliveOnly is not null)
        {
            try
            {
                KeepaliveRefreshes = (await _keepaliveOnly.TestAsync(limit.Token)).Lost is null;
                if (_refreshed is not null)
                {
                    PayloadRefreshes = _refreshedLives && await _refreshed.ExchangeAsync(TimeSpan.FromSeconds(2), limit.Token) == ExchangeOutcome.Answered;
                }
            }
            catch (OperationCanceledException)
            {
                // Out of time: these two stay unknown.
            }
        }

        if (!interrupted)
        {
            await FindHopAsync();
        }

        foreach (var id in _idlers.Keys.ToArray())
        {
            await DropAsync(id);
        }

        if (KeepaliveRefreshes == false)
        {
            _keepaliveOnly!.Socket.AbortOnClose();
        }

        foreach (var connection in new[] { _keepaliveOnly, _refreshed }.OfType<LadderConnection>())
        {
            await connection.DisposeAsync();
        }

        if (_sessions is not null && await _sessions.LeaveNothingAsync(CleanUpPatience) is not 0)
        {
            Note($"the server could not be asked whether sessions of ours remain (application_name = {LadderSessions.ApplicationName})");
        }
    }

    /// <summary>Where the state is lost, asked on a connection that is lost and on a fresh one. A few seconds at most.</summary>
    private async Task FindHopAsync()
    {
        if (_forgotten is null || !_idlers.ContainsValue(_forgotten) || _losses.All(l => l is not (LossKind.Silent or LossKind.Reset)))
        {
            return;
        }

        using var limit = new CancellationTokenSource(HopPatience);
        try
        {
            await using var living = await TcpLadderConnection.OpenAsync(_target.Network, _target.Endpoint, default, ConnectPatience, limit.Token);
            _connections++;

            // A keepalive can only be fired after a second without traffic.
            await Task.Delay(TimeSpan.FromSeconds(1.1), limit.Token);
            _hop = await HopFinder.FindAsync(_target.Network, _forgotten.Connection.Socket, living.Socket, _target.Endpoint, limit.Token);
        }
        catch (OperationCanceledException)
        {
            _hop = new HopFinding(null, "the hops took too long to answer");
        }
        catch (SocketException e)
        {
            _hop = new HopFinding(null, $"no connection for comparison: {e.Message}");
        }
    }

    private bool? KeepaliveRefreshes { get; set; }

    private bool? PayloadRefreshes { get; set; }

    private MeasurementReport MakeReport(bool interrupted)
    {
        var estimate = _estimator.Estimate(DateTimeOffset.UtcNow);
        var kind = Classify(estimate.Upper is not null);
        if (kind is PathClass.PeerCloses or PathClass.PayloadOnly && PayloadRefreshes is null)
        {
            Note("no application data was sent (plain TCP): whether it keeps a connection alive is not known");
        }

        if (_serverFirst == true)
        {
            Note("after the timeout data from the server still arrives, where data from this side is lost: the directions differ");
        }

        return new MeasurementReport
        {
            Endpoint = _target.ToString(),
            Lower = estimate.Lower,
            Upper = estimate.Upper,
            Class = kind,
            Elapsed = Elapsed,
            ConnectionsUsed = _connections,
            FreshConnects = _freshConnects,
            KeepaliveRefreshes = KeepaliveRefreshes,
            PayloadRefreshes = PayloadRefreshes,
            ServerFirstPasses = _serverFirst,
            Hop = _hop?.Hop?.ToString(),
            HopReason = _hop?.Why,
            PeerKeepalive = _peerRefreshes.Count > 1 ? _peerRefreshes.Min() : null,
            Interrupted = interrupted,
            Gaps = _gaps,
            Observations = _observations,
            Notes = _notes,
        };
    }

    private PathClass Classify(bool lost)
    {
        if (!lost || _losses.Count == 0)
        {
            return PathClass.NoneSeen;
        }

        var usual = _losses.GroupBy(l => l).MaxBy(g => g.Count())!.Key;
        if (usual == LossKind.PeerAnnounced)
        {
            return PathClass.PeerCloses;
        }

        if (KeepaliveRefreshes == false && PayloadRefreshes == true)
        {
            return PathClass.PayloadOnly;
        }

        return usual switch
        {
            LossKind.PeerClosed => PathClass.PeerCloses,
            LossKind.Reset => PathClass.Reset,
            _ => KeepaliveRefreshes == false && PayloadRefreshes is null ? PathClass.PayloadOnly : PathClass.SilentDrop,
        };
    }

    /// <summary>An idling connection and its test.</summary>
    private sealed class Rung(LadderConnection connection)
    {
        private readonly long _made = Stopwatch.GetTimestamp();

        public LadderConnection Connection { get; } = connection;

        /// <summary>Age at which it is to be tested.</summary>
        public TimeSpan? Target { get; set; }

        /// <summary>Age at which the running test began.</summary>
        public TimeSpan? TestedAt { get; private set; }

        public Task<GapTest>? Test { get; private set; }

        /// <summary>It takes no part in the plan any more.</summary>
        public bool IsWitness { get; set; }

        public void Begin(CancellationToken cancellation)
        {
            TestedAt = Connection.Age;
            Test = Connection.TestAsync(cancellation);
        }

        /// <summary>Time from its making to the begin of the present gap: earlier gaps and their tests.</summary>
        public TimeSpan Spent { get; private set; }

        public void Restart()
        {
            Spent = Stopwatch.GetElapsedTime(_made) - Connection.Age;
            TestedAt = null;
            Test = null;
            Target = null;
        }
    }
}
