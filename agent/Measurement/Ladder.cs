using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// Carries out a <see cref="LadderPlan"/> with connections of our own: opens them, lets them idle, tests them when
/// their gap has come, and tells a lost connection from an outage by a fresh one. Beside the idling connections two
/// more are kept for comparison: one that only keepalives refresh and one that application data refreshes.
/// </summary>
internal sealed class Ladder : IDisposable
{
    private const int MostUnwanted = 10;

    private static readonly TimeSpan ScanInterval = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan EndPatience = TimeSpan.FromSeconds(15);

    private static readonly TimeSpan PayloadPatience = TimeSpan.FromSeconds(3);

    /// <summary>A connection that is ended sooner than this was not wanted from the start.</summary>
    private static readonly TimeSpan Unwanted = TimeSpan.FromSeconds(2);

    /// <summary>A run lasts no longer than its longest gap and this: opening, and the tests of the last connections.</summary>
    internal static readonly TimeSpan Overtime = TimeSpan.FromSeconds(10);

    private readonly MeasurementTarget _target;
    private readonly LadderOpener _opener;
    private readonly LadderFindings _findings;
    private readonly Action<LadderProgress>? _progress;
    private readonly long _start;
    private readonly TimeSpan _end;
    private readonly Rungs _rungs;
    private readonly Comparison _comparison;
    private readonly Witnesses _witnesses;
    private readonly LossJudge _judge;
    private readonly Confirmation _confirmation;

    private LadderSettings _settings;
    private int _unwanted;
    private string? _failure;

    private Ladder(MeasurementTarget target, LadderSettings settings, Action<LadderProgress>? progress, Action<GapObservation>? learnt, ILadderWire? wire)
    {
        _target = target;
        _settings = settings;
        _progress = progress;
        _opener = new LadderOpener(target, settings.IsGuest, wire);
        _start = _opener.Clock.GetTimestamp();
        _end = settings.Max + Overtime;
        _findings = new LadderFindings(settings, learnt, _opener.Clock);
        _rungs = new Rungs(_opener);
        _comparison = new Comparison(_opener.Clock);
        _witnesses = new Witnesses(_opener, _comparison);
        _judge = new LossJudge(_findings, _comparison, _opener, _rungs);
        _confirmation = new Confirmation(_findings.Evidence, _rungs, _end);
    }

    /// <summary>
    /// Measures until the bounds are close enough, until the longest gap and <see cref="Overtime"/> have passed, or until it is
    /// cancelled; then it returns what was learnt, marked as interrupted. All connections are closed and no session is left on the
    /// server when it returns.
    /// </summary>
    /// <param name="target">What to measure.</param>
    /// <param name="settings">How far and how closely.</param>
    /// <param name="progress">Told what is known, several times a second.</param>
    /// <param name="learnt">Told each piece of evidence about the path as it comes.</param>
    /// <param name="cancellation">Ends it early.</param>
    /// <exception cref="MeasurementException">
    /// Nothing could be measured: no connection, wrong credentials, no free slots; for a guest also a connection that could not be had later.
    /// </exception>
    public static Task<MeasurementReport> RunAsync(
        MeasurementTarget target,
        LadderSettings settings,
        Action<LadderProgress>? progress,
        Action<GapObservation>? learnt,
        CancellationToken cancellation) => RunOverAsync(wire: null, target, settings, progress, learnt, cancellation);

    /// <summary>The same over a wire of the caller's; null: the network.</summary>
    internal static async Task<MeasurementReport> RunOverAsync(
        ILadderWire? wire,
        MeasurementTarget target,
        LadderSettings settings,
        Action<LadderProgress>? progress,
        Action<GapObservation>? learnt,
        CancellationToken cancellation)
    {
        using var ladder = new Ladder(target, settings, progress, learnt, wire);
        var interrupted = false;
        try
        {
            await ladder.BeginAsync(cancellation);
            interrupted = !await ladder.ClimbAsync(cancellation);
            if (interrupted)
            {
                ladder._findings.Note($"ended {Duration.ForPeople(Overtime)} after the longest gap: the bounds would become closer with more time");
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            interrupted = true;
        }
        catch (MeasurementException e) when (!settings.IsGuest && ladder._rungs.Opened > 0)
        {
            // What was learnt until then is worth telling.
            ladder._failure = e.Message;
            interrupted = true;
        }
        finally
        {
            await ladder.EndAsync(isStopped: cancellation.IsCancellationRequested || ladder._failure is not null, cancellation);
        }

        return ladder._findings.Report(target, ladder.Elapsed, ladder._opener, ladder._comparison, ladder._witnesses, interrupted)
            with { Failure = ladder._failure };
    }

    private TimeSpan Elapsed => _opener.Clock.GetElapsedTime(_start);

    public void Dispose() => _comparison.Dispose();

    private async Task BeginAsync(CancellationToken cancellation)
    {
        // Opened first, so that each of the two has gone longer without the other kind of refreshment than any gap.
        var first = await _opener.OpenFirstAsync(cancellation);
        _comparison.KeepAlive(first);
        _settings = _settings with { Slots = await LadderPlaces.CountAsync(first, _target, _settings, cancellation) };
        if (first is TcpLadderConnection { HasPayload: true } && await first.ExchangeAsync(PayloadPatience, cancellation) != ExchangeOutcome.Answered)
        {
            throw new MeasurementException($"{_target}: nothing came back for the payload within {Duration.ForPeople(PayloadPatience)}: only an answer of the server's shows that it is there");
        }

        await first.SettleAsync(cancellation);
        if (first.HasPayload && !_settings.IsGuest)
        {
            _comparison.Exchange(await _opener.OpenFirstAsync(cancellation));
        }
    }

    /// <summary>Searches, and sees each bound again.</summary>
    /// <returns>False where time is over before the bounds are close.</returns>
    private async Task<bool> ClimbAsync(CancellationToken cancellation)
    {
        LadderBounds bounds;
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            _judge.Hear(Elapsed);
            await CollectAsync(cancellation);
            await ScanAsync(cancellation);

            bounds = _findings.Search();
            var step = _confirmation.Next(bounds, _settings, Elapsed) ?? LadderPlan.Next(bounds.Lower, bounds.Upper, _rungs.Idlers(), _rungs.Opened, _settings);
            if (step.Finished || Elapsed >= _end)
            {
                break;
            }

            CallWitnesses(bounds, cancellation);
            await _rungs.FollowAsync(step);
            if (step.Open > 0 && !_opener.IsEnding)
            {
                await OpenIdlersAsync(step.Open, cancellation);
            }

            _rungs.BeginDue(cancellation);
            _confirmation.NoteBegun();
            _comparison.Refresh(bounds.Lower, cancellation);
            Report(bounds);
            await _rungs.PauseAsync(ScanInterval, cancellation);
        }

        // A witness or the server's word may still be on its way: they are heard, in a few seconds at most.
        CallWitnesses(_findings.Search(), cancellation);
        await Task.WhenAll(_comparison.RestAsync(), _witnesses.RestAsync()).WaitAsync(cancellation);
        await CollectAsync(cancellation);
        return bounds.Varies || LadderPlan.IsFinished(bounds.Lower, bounds.Upper, _settings);
    }

    /// <summary>Takes in the verdicts of the tests that have ended.</summary>
    private async Task CollectAsync(CancellationToken cancellation)
    {
        foreach (var rung in _rungs.All.Where(r => r.Test is { IsCompleted: true }).ToArray())
        {
            var test = await rung.Test!;
            var tested = _opener.Clock.GetElapsedTime(_start, rung.TestBegan);
            if (test.Lost is null && !test.Disturbed)
            {
                _findings.Survive(test.Survived!.Value, tested - rung.TestedAt!.Value, Elapsed);
                rung.Restart();
                if (rung.IsWitness || (_comparison.IsKeepaliveLost && !rung.Connection.HasPayload))
                {
                    await _rungs.DropAsync(rung, isLost: !rung.IsWitness); // where only data counts its time may be over by now
                }

                continue;
            }

            await _rungs.DropAsync(rung, isLost: true);
            if (test.Disturbed)
            {
                _findings.NoteEvent("connections were ended by the server's administrator or by a restart; those say nothing about the path");
                continue;
            }

            if (rung.Spent == TimeSpan.Zero && (test.Survived ?? test.Lost) < Unwanted && test.Loss != LossKind.Silent)
            {
                await BeUnwantedAsync("the server closes further connections at once", cancellation);
                continue;
            }

            // A loss counts only while a fresh connection works: otherwise it is an outage.
            if (!await _opener.PathIsUpAsync(cancellation))
            {
                _judge.Hear(Elapsed, isDown: true);
                _findings.NoteEvent("the endpoint could not be reached for a while; what was lost in that time was not counted");
                continue;
            }

            if (!await _judge.LoseAsync(rung, test, tested, Elapsed, cancellation))
            {
                _settings = _settings with { Connections = Math.Max(_settings.Connections, Math.Min(LadderPlan.MostConnections, _rungs.Opened + (LadderPlan.DefaultConnections / 2))) };
            }
        }
    }

    /// <summary>Scans what idles: ends that came by themselves, and refreshment by the peer.</summary>
    private async Task ScanAsync(CancellationToken cancellation)
    {
        var ended = new List<Rung>();
        foreach (var rung in _rungs.All.Where(r => r.Test is null))
        {
            switch (rung.Connection.Scan(out var age))
            {
                case IdleScan.Ended:
                    ended.Add(rung);
                    break;
                case IdleScan.Refreshed when age > TimeSpan.FromSeconds(2):
                    HearPeer(rung.Peer.Note(age));
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
                _findings.NoteEvent("connections of all ages ended at the same moment; those say nothing about the path");
                foreach (var rung in ended)
                {
                    await _rungs.DropAsync(rung);
                }

                return;
            }
        }

        foreach (var rung in ended)
        {
            rung.Begin(cancellation);
        }
    }

    private void HearPeer(TimeSpan? refreshes)
    {
        if (refreshes is not { } every)
        {
            return;
        }

        _findings.NotePeerKeepalive(every);
        if (_settings.Max <= every - ScanInterval)
        {
            return;
        }

        _settings = _settings with { Max = every - (2 * ScanInterval) };
        _findings.Note($"the server sends something on idle connections after {Duration.ForPeople(every)} (its own keepalives): longer gaps do not occur on this path");
    }

    private void CallWitnesses(LadderBounds bounds, CancellationToken cancellation)
    {
        if (bounds.Upper is { } upper && !_settings.IsGuest)
        {
            _witnesses.Call(_rungs.All, upper, _findings.Evidence.Losses, cancellation);
        }
    }

    private async Task OpenIdlersAsync(int count, CancellationToken cancellation)
    {
        try
        {
            if (_settings.IsGuest)
            {
                await _opener.EndLostAsync(cancellation);
            }

            var opened = await _opener.OpenAsync(count, cancellation);
            foreach (var connection in opened)
            {
                _rungs.Add(connection);
            }

            if (opened.Count > 0)
            {
                _opener.EndOutage();
            }

            if (opened.Count < count && !_settings.IsGuest)
            {
                await BeUnwantedAsync("not all connections could be opened", cancellation);
            }
        }
        catch (MeasurementException) when (_rungs.All.Count > 0 && !_settings.IsGuest)
        {
            // The server has filled up meanwhile.
            await BeUnwantedAsync("the server is at its connection limit", cancellation);
        }
    }

    /// <summary>The server does not want so many connections: the ladder goes on with those it has; a guest goes.</summary>
    private async Task BeUnwantedAsync(string why, CancellationToken cancellation)
    {
        if (_settings.IsGuest || ++_unwanted > MostUnwanted)
        {
            throw new MeasurementException($"{_target}: {why}");
        }

        _settings = _settings with { Slots = Math.Max(1, _rungs.All.Count) };
        _findings.Note(why);
        if (_rungs.All.Count == 0)
        {
            await _opener.WaitOutAsync(cancellation);
        }
    }

    private void Report(LadderBounds bounds)
    {
        if (_progress is null)
        {
            return;
        }

        var oldest = _rungs.All.Select(r => r.Connection.Age).DefaultIfEmpty(TimeSpan.Zero).Max();
        var left = bounds.Upper is null
            ? _settings.Max - oldest
            : _rungs.All.Where(r => r.Target is not null).Select(r => r.Target!.Value - r.Connection.Age).DefaultIfEmpty(TimeSpan.Zero).Max();
        _progress(new LadderProgress(Elapsed, bounds.Lower, bounds.Upper, _rungs.All.Count, left > TimeSpan.Zero ? left : TimeSpan.Zero));
    }

    /// <summary>What the connections for comparison say; then everything is closed.</summary>
    /// <param name="isStopped">There is no time for further questions.</param>
    private async Task EndAsync(bool isStopped, CancellationToken cancellation)
    {
        await Task.WhenAll(_comparison.RestAsync(), _witnesses.RestAsync()).WaitAsync(EndPatience, _opener.Clock, CancellationToken.None).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        var bounds = _findings.Evidence.Result();
        if (bounds.Upper is { } upper)
        {
            using var limit = new CancellationTokenSource(EndPatience, _opener.Clock);
            await _comparison.TestAsync(upper, limit.Token);
        }

        if (!isStopped && !_settings.IsGuest)
        {
            await _witnesses.FindHopAsync(_rungs.All, _findings.Losses);
        }

        foreach (var rung in _rungs.All.ToArray())
        {
            await _rungs.DropAsync(rung, isLost: rung.IsWitness || (bounds.Upper is not null && rung.Connection.Age > bounds.Lower));
        }

        await _comparison.CloseAsync(_opener);
        if (!isStopped && bounds.Upper is { } forgotten && Elapsed + (ClockTrial.Length(forgotten) * 2) < _end && _findings.SuggestsPayloadOnly(_target, _comparison))
        {
            await TryClockAsync(cancellation);
        }

        if (!await _opener.LeaveNothingAsync(gently: !isStopped))
        {
            _findings.Note($"the server could not be asked whether sessions of ours remain (application_name = {LadderSessions.ApplicationName})");
        }
    }

    /// <summary>Proves that keepalives do not count and data does, on two occasions: one was this ladder, if it had a connection for data.</summary>
    private async Task TryClockAsync(CancellationToken cancellation)
    {
        var bounds = _findings.Evidence.Result();
        var isProven = true;
        try
        {
            for (var occasion = _comparison.PayloadRefreshes == true ? 1 : 0; occasion < 2 && isProven; occasion++)
            {
                await _opener.EndLostAsync(cancellation);
                var keepaliveOnly = Math.Min(2, _settings.Slots);
                isProven = await ClockTrial.RunAsync(_opener, bounds.Lower, bounds.Upper!.Value, keepaliveOnly, _target.Protocol, cancellation) == true;
            }

            _findings.IsPayloadOnly = isProven;
        }
        catch (Exception e) when (e is MeasurementException or OperationCanceledException)
        {
            _findings.Note("there was no second occasion to see whether keepalives count");
        }
    }
}
