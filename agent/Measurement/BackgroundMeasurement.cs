using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Npgsql;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>A path of an upstream with <c>idle-timeout = measure</c>, as the loop knows it.</summary>
internal readonly record struct PathToMeasure
{
    public required KeptPathKey Key { get; init; }

    public required UpstreamSection Upstream { get; init; }

    public required IPEndPoint Endpoint { get; init; }

    /// <summary>Where the path begins; null: this process's own namespace.</summary>
    public NetworkNamespace? Network { get; init; }

    /// <summary>What is known of it now.</summary>
    public required IdleTimeoutEstimate Estimate { get; init; }
}

/// <summary>Evidence of a running ladder, or its end.</summary>
/// <param name="Key">The path it is about.</param>
/// <param name="Observation">A piece of evidence for the path's estimator; null in the last message of a ladder.</param>
/// <param name="Report">The result in the last message of a ladder; null otherwise, or where it failed.</param>
/// <param name="Problem">In the last message of a ladder: why it has no result; null where it has one.</param>
internal readonly record struct MeasurementNews(KeptPathKey Key, GapObservation? Observation, MeasurementReport? Report, string? Problem = null);

/// <summary>Runs a ladder: <see cref="Ladder.RunAsync"/>, or something else in tests.</summary>
internal delegate Task<MeasurementReport> LadderRunner(
    MeasurementTarget target, LadderSettings settings, Action<LadderProgress>? progress, Action<GapObservation>? learnt, CancellationToken cancellation);

/// <summary>Lets one connection idle: <see cref="SingleGap.TryAsync"/>, or something else in tests.</summary>
internal delegate Task<GapObservation?> GapTrial(MeasurementTarget target, TimeSpan gap, CancellationToken cancellation);

/// <summary>
/// Measures paths while the agent runs, beside the loop: the loop offers its paths at every scan and takes the news; it
/// never waits. A path is measured when little is known of it, when its evidence contradicts itself or has worn out (the router may
/// have changed), and again when what is known has grown old. A timeout that has become shorter shows by itself, in connections
/// that are lost; one that has become longer shows in nothing that is kept alive, so now and then one connection idles
/// for longer than the path is known to remember. One ladder runs at a time; its first and last gaps
/// are far apart and its connections few (<see cref="LadderSettings.IsGuest"/>), so the server hardly notices.
/// </summary>
internal sealed class BackgroundMeasurement : IAsyncDisposable
{
    private readonly EvidenceStore _store;
    private readonly BackgroundSettings _settings;
    private readonly ILogger _logger;
    private readonly TimeProvider _clock;
    private readonly LadderRunner _run;
    private readonly GapTrial _try;
    private readonly Dictionary<KeptPathKey, KeptEvidence> _kept;
    private readonly Dictionary<KeptPathKey, PathHistory> _histories = [];
    private readonly HashSet<string> _refused = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<MeasurementNews> _news = new();
    private readonly CancellationTokenSource _stopping = new();
    private Task _ladder = Task.CompletedTask;
    private Task _saving = Task.CompletedTask;
    private DateTimeOffset _savedAt;
    private bool _changed;
    private bool _disposed;

    /// <summary>Reads what is kept. Starts nothing yet.</summary>
    /// <param name="stateDirectory">Where <c>idle-timeouts.json</c> is.</param>
    /// <param name="settings">How often and with how much.</param>
    /// <param name="logger">Told about beginnings, ends and refusals.</param>
    /// <param name="clock">Wall clock.</param>
    /// <param name="run">Runs a ladder.</param>
    /// <param name="tryGap">Tries one gap.</param>
    public BackgroundMeasurement(string stateDirectory, BackgroundSettings settings, ILogger logger, TimeProvider clock, LadderRunner? run = null, GapTrial? tryGap = null)
    {
        _store = new EvidenceStore(stateDirectory, logger);
        _settings = settings;
        _logger = logger;
        _clock = clock;
        _run = run ?? Ladder.RunAsync;
        _try = tryGap ?? SingleGap.TryAsync;
        _kept = _store.Load();
        _savedAt = clock.GetUtcNow();
    }

    /// <summary>The evidence kept from an earlier run, for the estimator of a path that comes into use; null when there is none.</summary>
    public KeptEvidence? Kept(KeptPathKey key) => _kept.GetValueOrDefault(key);

    /// <summary>The class that the path's last measurement found; null before one has ended.</summary>
    public PathClass? ClassOf(KeptPathKey key) => _histories.GetValueOrDefault(key)?.Report?.Class;

    /// <summary>The path that is being measured now, or null.</summary>
    public KeptPathKey? Running { get; private set; }

    /// <summary>
    /// Offers a path that is in use. Begins a ladder on it if that is due and none runs. Returns at once. Call it from
    /// one thread, as all members here.
    /// </summary>
    public void Offer(in PathToMeasure path)
    {
        if (!_ladder.IsCompleted || path.Upstream.IdleTimeout.Source != IdleTimeoutSource.Measure)
        {
            return;
        }

        var history = HistoryOf(path.Key);
        if (!IsDue(path))
        {
            TryLonger(path, history);
            return;
        }

        if (!IsPermitted(path))
        {
            return;
        }

        history.LastBegun = _clock.GetUtcNow();
        history.Contradictions = IsUnsettled(path.Estimate, history) ? history.Contradictions + 1 : 0;
        Running = path.Key;
        var copy = path;
        _ladder = Task.Run(() => MeasureAsync(copy));
    }

    /// <summary>Takes one piece of news; false when there is none.</summary>
    public bool TryTake(out MeasurementNews news)
    {
        if (!_news.TryDequeue(out news))
        {
            return false;
        }

        if (news.Observation is null)
        {
            HistoryOf(news.Key).Report = news.Report ?? HistoryOf(news.Key).Report;
            HistoryOf(news.Key).Failures = news.Report is null ? HistoryOf(news.Key).Failures + 1 : 0;
            Running = null;
        }

        return true;
    }

    /// <summary>
    /// Hands over a path's evidence to be kept: after news, and now and then for passive evidence. It is written in the
    /// background, at most every <see cref="BackgroundSettings.SaveEvery"/>.
    /// </summary>
    public void Keep(KeptPathKey key, KeptEvidence evidence)
    {
        _kept[key] = evidence;
        _changed = true;
        if (_saving.IsCompleted && _clock.GetUtcNow() - _savedAt >= _settings.SaveEvery)
        {
            _saving = SaveAsync();
        }
    }

    /// <summary>Ends a running ladder, which leaves no session behind, and writes what is to be kept.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        await _stopping.CancelAsync();
        await _ladder.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _saving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_changed)
        {
            await SaveAsync();
        }

        _stopping.Dispose();
    }

    private Task SaveAsync()
    {
        _changed = false;
        _savedAt = _clock.GetUtcNow();
        foreach (var stale in _kept.Where(k => k.Value.Observations.All(o => _savedAt - o.At > _settings.ForgetAfter)).Select(k => k.Key).ToArray())
        {
            _kept.Remove(stale);
        }

        var snapshot = new Dictionary<KeptPathKey, KeptEvidence>(_kept);
        return Task.Run(() => _store.Save(snapshot));
    }

    private bool IsDue(in PathToMeasure path)
    {
        var now = _clock.GetUtcNow();
        var history = HistoryOf(path.Key);
        if (history.LastBegun is not { } begun)
        {
            // Kept evidence that is still good saves a ladder after a restart.
            return path.Estimate.Contradicted || !IsTight(path.Estimate) || path.Estimate.Age > _settings.MeasureAgainAfter;
        }

        if (history.Failures > 0)
        {
            var pause = _settings.RetryAfter * Math.Pow(2, Math.Min(history.Failures - 1, 30));
            return now - begun >= (pause < _settings.MeasureAgainAfter ? pause : _settings.MeasureAgainAfter);
        }

        if (IsUnsettled(path.Estimate, history))
        {
            return now - begun >= _settings.ContradictionPause * Math.Pow(2, Math.Min(history.Contradictions, 7));
        }

        return now - begun >= _settings.MeasureAgainAfter;
    }

    /// <summary>
    /// Evidence contradicts itself, or what contradicted it has been worn out and little is left; or the last ladder met losses and found
    /// no gap that is lost for certain, as where the router was changed meanwhile.
    /// </summary>
    private static bool IsUnsettled(IdleTimeoutEstimate estimate, PathHistory history) =>
        estimate.Contradicted || history.Report is { Upper: null, Varies: true } || (!IsTight(estimate) && (estimate.Upper is not null || history.Report?.Upper is not null));

    private static bool IsTight(IdleTimeoutEstimate estimate) => estimate.IsTight(0.1, TimeSpan.FromSeconds(2));

    /// <summary>What a ladder may be run against unasked. The reason for a refusal is logged once per upstream.</summary>
    private bool IsPermitted(in PathToMeasure path)
    {
        // Each handshake that a MySQL or MariaDB server sees without a log-in brings this host nearer to being blocked
        // (max_connect_errors).
        const int mySql = 3306;
        var reason = path.Upstream switch
        {
            { Direction: UpstreamDirection.Inbound } => "inbound connections cannot be made from here",
            { IsBuiltIn: true } => "it is not declared in the configuration",
            { Protocol: UpstreamProtocol.PostgreSql, DsnFile: null } => "protocol = postgresql needs a dsn-file: sessions that do not log in are closed by the server",
            { Protocol: var protocol } when protocol == UpstreamProtocol.MySql || (protocol == UpstreamProtocol.Tcp && path.Endpoint.Port == mySql) => "MySQL blocks hosts that connect without logging in",
            _ => null,
        };
        if (reason is not null && _refused.Add(path.Upstream.Name))
        {
            _logger.LogInformation(
                "upstream {Upstream}: the idle timeout is learnt from its own connections only, no ladder is run: {Reason}", path.Upstream.Name, reason);
        }

        return reason is null;
    }

    private async Task MeasureAsync(PathToMeasure path)
    {
        MeasurementReport? report = null;
        string? problem = null;
        try
        {
            var target = TargetOf(path);
            var settings = new LadderSettings
            {
                Max = _settings.Max,
                Survived = path.Estimate is { Contradicted: false, Lower: var survived } ? survived : TimeSpan.Zero,
                IsGuest = true,
            };
            _logger.LogInformation("upstream {Upstream}: measuring the idle timeout of the path to {Endpoint}", path.Upstream.Name, path.Endpoint);
            report = await _run(target, settings, null, observation => _news.Enqueue(new MeasurementNews(path.Key, observation, null)), _stopping.Token);
            _logger.LogInformation(
                "upstream {Upstream}: the path to {Endpoint} is {Class}, lower {Lower}, upper {Upper}; {Notes}",
                path.Upstream.Name,
                path.Endpoint,
                report.ClassName,
                Duration.ForPeople(report.Lower),
                report.Upper is { } upper ? Duration.ForPeople(upper) : "none",
                string.Join("; ", report.Notes.DefaultIfEmpty("no remarks")));
            // Keepalives that did not help on one occasion prove nothing: asked again.
            if (report.Interrupted || report is { KeepaliveRefreshes: false, Class: PathClass.SilentDrop or PathClass.Reset or PathClass.NotKnown })
            {
                problem = report.Notes is [.., var last] ? last : null;
                report = null;
            }
        }
        catch (Exception e) when (e is MeasurementException or DsnFileException or NpgsqlException or SocketException or KernelException or InvalidOperationException)
        {
            problem = e.Message;
            _logger.LogWarning("upstream {Upstream}: the idle timeout could not be measured: {Reason}", path.Upstream.Name, problem);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // The loop must go on whatever a measurement runs into.
            problem = e.Message;
            _logger.LogError(e, "upstream {Upstream}: measuring failed", path.Upstream.Name);
        }
        finally
        {
            _news.Enqueue(new MeasurementNews(path.Key, null, report, problem));
        }
    }

    private void TryLonger(in PathToMeasure path, PathHistory history)
    {
        var now = _clock.GetUtcNow();
        if (path.Estimate is not { Contradicted: false, Upper: { } upper } || history.Failures > 0)
        {
            return;
        }

        history.LastLonger ??= history.LastBegun ?? now;
        var every = upper * _settings.LongerEvery > _settings.LongerLeast ? upper * _settings.LongerEvery : _settings.LongerLeast;
        if (now - (history.LastBegun > history.LastLonger ? history.LastBegun.Value : history.LastLonger.Value) < every || !IsPermitted(path))
        {
            return;
        }

        history.LastLonger = now;
        var gap = upper * 1.25;
        var copy = path;
        _ladder = Task.Run(() => TryLongerAsync(copy, gap < _settings.Max ? gap : _settings.Max));
    }

    private async Task TryLongerAsync(PathToMeasure path, TimeSpan gap)
    {
        try
        {
            if (await _try(TargetOf(path), gap, _stopping.Token) is { } observation)
            {
                _news.Enqueue(new MeasurementNews(path.Key, observation, null));
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // The next one may do better; a server that cannot be reached is told of elsewhere.
            _logger.LogDebug(e, "upstream {Upstream}: a longer gap could not be tried", path.Upstream.Name);
        }
    }

    private static MeasurementTarget TargetOf(in PathToMeasure path) => new()
    {
        Host = path.Upstream.Endpoints.Select(e => e.Host).FirstOrDefault(h => h is not null) ?? path.Endpoint.Address.ToString(),
        Endpoint = path.Endpoint,
        Network = path.Network,
        Protocol = path.Upstream.Protocol,
        Dsn = path.Upstream is { Protocol: UpstreamProtocol.PostgreSql, DsnFile: { } file } ? DsnFile.Read(file) : null,
    };

    private PathHistory HistoryOf(KeptPathKey key)
    {
        if (!_histories.TryGetValue(key, out var history))
        {
            _histories[key] = history = new PathHistory();
        }

        return history;
    }

    private sealed class PathHistory
    {
        public DateTimeOffset? LastBegun { get; set; }

        /// <summary>When a gap beyond the upper bound was last tried.</summary>
        public DateTimeOffset? LastLonger { get; set; }

        public MeasurementReport? Report { get; set; }

        public int Failures { get; set; }

        /// <summary>Ladders in a row that began because of a contradiction.</summary>
        public int Contradictions { get; set; }
    }
}

/// <summary>How often the background measures, and with how much.</summary>
internal sealed record BackgroundSettings
{
    /// <summary>Longest gap of a ladder.</summary>
    public TimeSpan Max { get; init; } = new LadderSettings().Max;

    /// <summary>A path is measured again after this time, to notice a timeout that has become longer.</summary>
    public TimeSpan MeasureAgainAfter { get; init; } = TimeSpan.FromHours(24);

    /// <summary>
    /// One connection idles for a quarter longer than the path is known to remember, after this many times its upper bound:
    /// a tenth of the time at most.
    /// </summary>
    public double LongerEvery { get; init; } = 10;

    /// <summary>And no sooner than after this.</summary>
    public TimeSpan LongerLeast { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Least time between two ladders on a path whose evidence contradicts itself; doubles while that does not end.</summary>
    public TimeSpan ContradictionPause { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>Time after a failed ladder: a connection was refused, or not answered. It doubles with each in a row, up to <see cref="MeasureAgainAfter"/>.</summary>
    public TimeSpan RetryAfter { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Evidence is written at most this often.</summary>
    public TimeSpan SaveEvery { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Paths without newer evidence than this are dropped from the file.</summary>
    public TimeSpan ForgetAfter { get; init; } = TimeSpan.FromDays(90);
}
