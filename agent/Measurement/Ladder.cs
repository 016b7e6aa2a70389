using System.Diagnostics;
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
internal sealed class Ladder : IDisposable
{
    // The least that measures anything: the two for comparison and two that idle.
    private const int ComparisonSlots = 2;
    private const int LeastSlots = ComparisonSlots + 2;

    private static readonly TimeSpan ScanInterval = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan CleanUpPatience = TimeSpan.FromSeconds(8);

    private readonly MeasurementTarget _target;
    private readonly LadderOpener _opener;
    private readonly LadderFindings _findings;
    private readonly Action<LadderProgress>? _progress;
    private readonly long _start = Stopwatch.GetTimestamp();
    private readonly Dictionary<int, Rung> _idlers = [];

    private LadderSettings _settings;
    private Comparison? _comparison;
    private Witnesses? _witnesses;
    private int _lastId;
    private int _idling;

    private Ladder(MeasurementTarget target, LadderSettings settings, Action<LadderProgress>? progress, Action<GapObservation>? learnt)
    {
        _target = target;
        _settings = settings;
        _progress = progress;
        _opener = new LadderOpener(target);
        _findings = new LadderFindings(settings.Survived, learnt);
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

        return ladder._findings.Report(target, Stopwatch.GetElapsedTime(ladder._start), ladder._opener, ladder._comparison, ladder._witnesses, interrupted);
    }

    public void Dispose() => _comparison?.Dispose();

    private async Task BeginAsync(CancellationToken cancellation)
    {
        // Opened first, so that each of the two has gone longer without the other kind of refreshment than any gap.
        var keepaliveOnly = await _opener.OpenFirstAsync(cancellation);
        _comparison = new Comparison(keepaliveOnly);
        _witnesses = new Witnesses(_target, _opener, _comparison);
        if (keepaliveOnly is PostgreSqlLadderConnection session)
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

        _comparison.Begin(keepaliveOnly.HasPayload ? await _opener.OpenFirstAsync(cancellation) : null);
    }

    private async Task ClimbAsync(CancellationToken cancellation)
    {
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            await CollectAsync(cancellation);
            await ScanAsync(cancellation);

            var estimate = _findings.Estimate();
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

            _comparison!.Refresh(estimate.Lower, cancellation);
            Report(estimate);
            await PauseAsync(cancellation);
        }

        // A witness or the server's word may still be on its way: they are heard, in a few seconds at most.
        CallWitnesses(_findings.Estimate(), cancellation);
        await Task.WhenAll(_comparison!.RestAsync(), _witnesses!.RestAsync()).WaitAsync(cancellation);
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
                _findings.Learn(test.Survived, null);
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
                _findings.Note("connections were ended by the server's administrator or by a restart; those say nothing about the path");
                continue;
            }

            // A loss counts only while a fresh connection works: otherwise it is an outage.
            if (await _opener.PathIsUpAsync(cancellation))
            {
                _findings.NoteLoss(test.Loss!.Value);
                // A server that nobody logs in to closes by its own clock: that is no evidence about the path.
                // It sees no keepalives, so that clock has run since the connection was made.
                var isServersOwn = test.Loss == LossKind.PeerClosed && !rung.Connection.HasPayload;
                if (isServersOwn)
                {
                    _findings.Learn(test.Survived + rung.Spent, test.Lost + rung.Spent, isEvidence: false);
                }
                else
                {
                    _findings.Learn(test.Survived, test.Lost);
                }
            }
            else
            {
                _findings.Note("the endpoint could not be reached for a while; what was lost in that time was not counted");
            }
        }
    }

    /// <summary>Scans what idles: ends that came by themselves, and refreshment by the peer.</summary>
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
                _findings.Note("connections of all ages ended at the same moment (a server restart); those say nothing about the path");
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
        if (_findings.NotePeerRefresh(age) is not { } every || _settings.Max <= every - ScanInterval)
        {
            return;
        }

        _settings = _settings with { Max = every - (2 * ScanInterval) };
        _findings.Note($"the server sends something on idle connections after {Duration.ForPeople(every)} (its own keepalives): longer gaps do not occur on this path");
    }

    private void CallWitnesses(IdleTimeoutEstimate estimate, CancellationToken cancellation)
    {
        if (estimate.Upper is { } upper)
        {
            _witnesses!.Call(_idlers.Values, upper, _findings.Losses.Count, cancellation);
        }
    }

    private async Task OpenIdlersAsync(int count, CancellationToken cancellation)
    {
        try
        {
            var opened = await _opener.OpenAsync(count, cancellation);
            foreach (var connection in opened)
            {
                _idling++;
                _idlers.Add(++_lastId, new Rung(connection));
            }

            if (opened.Count == 0 && _idlers.Count == 0)
            {
                await _opener.WaitOutAsync(cancellation);
            }
            else
            {
                _opener.EndOutage();
            }
        }
        catch (MeasurementException) when (_idlers.Count > 0)
        {
            // The server has filled up meanwhile: the ladder goes on with what it has.
            _settings = _settings with { Slots = Math.Max(2, _idlers.Count) };
        }
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
        if (lost || rung.IsWitness || (_findings.Estimate() is { Upper: not null } known && rung.Connection.Age > known.Lower))
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
        _progress(new LadderProgress(Stopwatch.GetElapsedTime(_start), estimate.Lower, estimate.Upper, _idlers.Count, left > TimeSpan.Zero ? left : TimeSpan.Zero));
    }

    /// <summary>What the connections for comparison say; then everything is closed.</summary>
    private async Task EndAsync(bool interrupted)
    {
        using var limit = new CancellationTokenSource(CleanUpPatience);
        if (_comparison is not null && _witnesses is not null)
        {
            await Task.WhenAll(_comparison.RestAsync(), _witnesses.RestAsync()).WaitAsync(CleanUpPatience).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (_findings.Estimate().Upper is not null)
            {
                await _comparison.TestAsync(limit.Token);
            }

            if (!interrupted)
            {
                await _witnesses.FindHopAsync(_idlers.Values, _findings.Losses);
            }
        }

        foreach (var id in _idlers.Keys.ToArray())
        {
            await DropAsync(id);
        }

        if (_comparison is not null)
        {
            await _comparison.CloseAsync();
        }

        if (!await _opener.LeaveNothingAsync(CleanUpPatience))
        {
            _findings.Note($"the server could not be asked whether sessions of ours remain (application_name = {LadderSessions.ApplicationName})");
        }
    }
}
