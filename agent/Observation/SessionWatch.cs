using System.Net;
using System.Threading.Channels;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// Scans of the sessions of one PostgreSQL upstream in the background, on a single session of its own. The loop reads
/// the last view and never waits; a server that is slow, full or away makes the view old, and an old view is no view.
/// </summary>
internal sealed class SessionWatch : IDisposable
{
    private static readonly TimeSpan Often = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Seldom = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan AfterFailure = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan LongestAfterFailure = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan SettingsEvery = TimeSpan.FromSeconds(60);

    private readonly UpstreamSection _section;
    private readonly Clock _clock;
    private readonly SessionProbe _probe;
    private readonly Channel<Func<SessionProbe, CancellationToken, Task>> _work = Channel.CreateUnbounded<Func<SessionProbe, CancellationToken, Task>>();
    private readonly CancellationTokenSource _stopping = new();
    private readonly Task _task;
    private volatile IReadOnlyCollection<IPAddress> _clients = [];
    private volatile bool _isUrgent;
    private volatile ServerView? _view;
    private volatile string? _problem;
    private volatile string? _notGranted;
    private volatile ServerSettings? _settings;

    /// <summary>Starts scanning. The DSN file is read with every new session, so it may be fixed while the agent runs.</summary>
    public SessionWatch(UpstreamSection section, Clock clock)
    {
        _section = section;
        _clock = clock;
        var file = section.DsnFile ?? throw new ArgumentException("an upstream without a DSN file has no sessions to look at", nameof(section));
        _probe = new SessionProbe(() => DsnFile.Read(file));
        _task = Task.Run(RunAsync);
    }

    /// <summary>What cannot be done on the server and why, in one line; null before the first answer.</summary>
    public SourceStatus? Source => (_problem, _view) switch
    {
        ({ } problem, _) => new(SourceStatus.Sessions, _section.Name, $"{_section.Name}: the sessions on the server are not seen, and none can be ended there (release): {problem}"),
        (null, null) => null,
        _ => new(SourceStatus.Sessions, _section.Name, _notGranted),
    };

    /// <summary>Null until they were read.</summary>
    public ServerSettings? Settings => _settings;

    /// <summary>The last view, or null where there is none that is fresh enough.</summary>
    public ServerView? ViewAt(TimeSpan now) => _view is { } view && now - view.Taken < ServerView.StaleAfter ? view : null;

    /// <summary>Which connections are asked about next.</summary>
    public void Attend(IEnumerable<TrackedConnection> connections)
    {
        var clients = new HashSet<IPAddress>();
        var urgent = false;
        foreach (var connection in connections)
        {
            clients.Add((connection.Upstream.Section.Direction == UpstreamDirection.Outbound ? connection.Key.Local : connection.Key.Peer).ToIPAddress());
            urgent |= connection.Judged is { Verdict: not (Verdict.Healthy or Verdict.Aging) } or { Reason: Reason.NearTheTimeout };
        }

        _clients = clients;
        if (urgent && !_isUrgent)
        {
            _work.Writer.TryWrite((_, _) => Task.CompletedTask); // do not wait for the seldom scan
        }

        _isUrgent = urgent;
    }

    /// <summary>Does something on the session, before the next scan.</summary>
    public void Do(Func<SessionProbe, CancellationToken, Task> work) => _work.Writer.TryWrite(work);

    /// <summary>Scans now; for use by what was handed to <see cref="Do"/>.</summary>
    /// <exception cref="ServerProbeException">The server does not answer.</exception>
    public async Task<ServerView> ScanAsync(SessionProbe probe, IReadOnlyCollection<IPAddress> clients, CancellationToken cancellation)
    {
        var taken = _clock.Now;
        var scan = await probe.ScanAsync(clients, cancellation).ConfigureAwait(false);
        return new ServerView(scan, taken, IsOwnEndSeen(scan));
    }

    public void Dispose()
    {
        _stopping.Cancel();
        _work.Writer.TryComplete();
        _task.Wait(TimeSpan.FromSeconds(2));
        _stopping.Dispose();
    }

    /// <summary>
    /// Whether this host has the connection that the server says the agent's session is: then nobody translates addresses
    /// between here and there.
    /// </summary>
    internal static bool IsOwnEndSeen(ServerScan scan)
    {
        if (scan is not { Self: { } self, Server: { } server })
        {
            return false;
        }

        try
        {
            using var diagnostics = SockDiagClient.Open();
            return diagnostics.TryFind(self, server, 0, out _);
        }
        catch (KernelException)
        {
            return false;
        }
    }

    private async Task RunAsync()
    {
        var cancellation = _stopping.Token;
        var afterFailure = AfterFailure;
        var nextScan = _clock.Now;
        var lastScan = TimeSpan.Zero;
        var nextSettings = _clock.Now;
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                await WaitAsync(nextScan, cancellation).ConfigureAwait(false);
                while (_work.Reader.TryRead(out var work))
                {
                    await work(_probe, cancellation).ConfigureAwait(false);
                }

                var due = _isUrgent && _problem is null && nextScan - _clock.Now > Often ? lastScan + Often : nextScan;
                if (_clock.Now < due)
                {
                    nextScan = due;
                    continue;
                }

                lastScan = _clock.Now;
                try
                {
                    if (lastScan >= nextSettings)
                    {
                        _settings = await _probe.ReadSettingsAsync(cancellation).ConfigureAwait(false);
                        nextSettings = _clock.Now + SettingsEvery;
                    }

                    _view = await ScanAsync(_probe, _clients, cancellation).ConfigureAwait(false);
                    var scan = _view.Scan;
                    var toEnd = scan.MaySignal || !_section.Recycle ? null : $"GRANT pg_signal_backend TO {scan.Role};";
                    _notGranted = toEnd is null ? null : $"{_section.Name}: orphaned sessions on the server cannot be ended (release): {toEnd}";
                    _problem = scan.MaySeeAll ? null : $"the role may not see the sessions of others: GRANT pg_monitor TO {scan.Role}; {toEnd}".TrimEnd();
                    afterFailure = AfterFailure;
                    nextScan = _clock.Now + (_isUrgent ? Often : Seldom);
                }
                catch (ServerProbeException e)
                {
                    _problem = e.Message;
                    nextScan = _clock.Now + afterFailure;
                    afterFailure = afterFailure * 2 < LongestAfterFailure ? afterFailure * 2 : LongestAfterFailure;
                }
            }
        }
        catch (OperationCanceledException)
        {
            // told to stop
        }
        finally
        {
            await _probe.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Until the next scan is due or there is work.</summary>
    private async Task WaitAsync(TimeSpan until, CancellationToken cancellation)
    {
        var wait = until - _clock.Now;
        if (wait <= TimeSpan.Zero)
        {
            return;
        }

        using var due = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        due.CancelAfter(wait);
        try
        {
            await _work.Reader.WaitToReadAsync(due.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // the scan is due
        }
    }
}
