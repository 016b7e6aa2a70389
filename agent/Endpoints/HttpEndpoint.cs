using System.Collections.Frozen;
using System.Globalization;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// Where the endpoint takes its answers from. None of these blocks: they return what the last scan left.
/// </summary>
internal sealed record HttpSources
{
    /// <summary>The last scan; null before the first.</summary>
    public required Func<AgentSnapshot?> Snapshot { get; init; }

    /// <summary>Completes when <see cref="Snapshot"/> is fresh, or soon.</summary>
    public Func<CancellationToken, Task> Refresh { get; init; } = static _ => Task.CompletedTask;

    public required Func<LoopHealth> Health { get; init; }

    /// <summary>The newest incidents, at most so many.</summary>
    public required Func<int, IReadOnlyList<Incident>> Incidents { get; init; }

    public required Func<ExpositionFormat, byte[]> Metrics { get; init; }

    public required string Version { get; init; }
}

/// <summary>
/// Metrics, health, checks, status as JSON and as a page. Read-only: nothing that is asked here changes anything.
/// Requests are bounded in size, number and time; an address that cannot be bound is tried again and does not stop the
/// agent. Kestrel is used without a host, routing or dependency injection: there are a dozen fixed paths.
/// </summary>
internal sealed class HttpEndpoint : IAsyncDisposable
{
    private static readonly TimeSpan RetryAfter = TimeSpan.FromSeconds(10);

    private readonly HttpSources _sources;
    private readonly ILoggerFactory _loggers;
    private readonly ILogger _logger;
    private readonly IPEndPoint _listen;
    private readonly TimeSpan _retryAfter;
    private readonly CancellationTokenSource _stopping = new();
    private readonly FrozenDictionary<string, Func<HttpContext, Task>> _routes;
    private readonly OwnNames _names;

    // Answers whose size grows with the number of connections: a few at a time bound the memory that readers can hold.
    private readonly SemaphoreSlim _largeAnswers = new(4);

    private readonly HttpPeers _peers = new();
    private readonly Func<uint, bool> _maySeeDetails;

    private KestrelServer? _server;
    private Task _retrying = Task.CompletedTask;

    public HttpEndpoint(IPEndPoint listen, HttpSources sources, ILoggerFactory loggers, TimeSpan? retryAfter = null, Func<uint, bool>? maySeeDetails = null, IReadOnlyList<string>? hostNames = null)
    {
        _maySeeDetails = maySeeDetails ?? Trusted.Includes;
        _listen = listen;
        _sources = sources;
        _loggers = loggers;
        _retryAfter = retryAfter ?? RetryAfter;
        _logger = loggers.CreateLogger("http");
        _names = new OwnNames(hostNames ?? []);
        _routes = new Dictionary<string, Func<HttpContext, Task>>(StringComparer.Ordinal)
        {
            ["/"] = Page,
            ["/metrics"] = Metrics,
            ["/healthz"] = Healthz,
            ["/readyz"] = Readyz,
            ["/api/v1/connections"] = Connections,
            ["/api/v1/incidents"] = Incidents,
            ["/api/v1/paths"] = UpstreamPaths,
            ["/api/v1/stack"] = context => Large(context, body => ApiJson.WriteStackAsync(body.BodyWriter, sources.Snapshot()!, context.RequestAborted)),
            ["/check/db"] = context => Check(context, Checks.Database),
            ["/check/pool"] = context => Check(context, Checks.Pool),
            ["/check/version"] = context => Check(context, Checks.Version, "check"),
            ["/check/workers"] = context => Check(context, Checks.Workers, "workers"),
            ["/runbook"] = RunbookPage,
            ["/check/host"] = context => Plain(context, 200, Dns.GetHostName()),
        }.ToFrozenDictionary(StringComparer.Ordinal);
    }

    /// <summary>The address in use (with the port the kernel chose, where 0 was asked for); null while not bound.</summary>
    public IPEndPoint? Bound { get; private set; }

    /// <summary>The paths that are answered.</summary>
    public IReadOnlyCollection<string> Paths => _routes.Keys;

    /// <summary>Why the endpoint is not there, for the agent's list of limitations; null while it is.</summary>
    public string? Problem { get; private set; }

    /// <summary>Binds, or begins to try again every ten seconds. Never throws.</summary>
    public async Task StartAsync()
    {
        if (!await TryBindAsync())
        {
            _retrying = RetryAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await _retrying;
        if (_server is not null)
        {
            // Readers that are slow to take their answer do not keep the agent from ending.
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(1));
            await _server.StopAsync(patience.Token);
            _server.Dispose();
        }

        Bound = null;
        _largeAnswers.Dispose();
        _peers.Dispose();
        _stopping.Dispose();
    }

    private async Task RetryAsync()
    {
        using var timer = new PeriodicTimer(_retryAfter);
        try
        {
            while (await timer.WaitForNextTickAsync(_stopping.Token))
            {
                if (await TryBindAsync())
                {
                    return;
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The endpoint is being closed.
        }
    }

    private async Task<bool> TryBindAsync()
    {
        var attempt = NewServer();
        try
        {
            await attempt.StartAsync(new Application(this), _stopping.Token);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            attempt.Dispose();
            var reason = (e.InnerException ?? e).Message;
            if (Problem is null)
            {
                _logger.LogError("cannot listen on {Address}: {Reason}; trying again every {Seconds} s", _listen, reason, _retryAfter.TotalSeconds);
            }

            Problem = $"no metrics or status endpoint: cannot listen on {_listen}: {reason}";
            return false;
        }

        _server = attempt;
        var address = new Uri(attempt.Features.GetRequiredFeature<IServerAddressesFeature>().Addresses.First());
        Bound = new IPEndPoint(_listen.Address, address.Port);
        Problem = null;
        _logger.LogInformation("listening on {Address}", Bound);
        return true;
    }

    private KestrelServer NewServer()
    {
        var options = new KestrelServerOptions { AddServerHeader = false, AllowSynchronousIO = false };
        var limits = options.Limits;
        limits.MaxRequestLineSize = 2048;
        limits.MaxRequestHeaderCount = 64;
        limits.MaxRequestHeadersTotalSize = 16 * 1024;
        limits.MaxRequestBufferSize = 32 * 1024;
        limits.MaxResponseBufferSize = 64 * 1024;
        limits.MaxRequestBodySize = 0;
        // Beyond HttpPeers.Most somebody gives up an older connection; this is for those that take long to end.
        limits.MaxConcurrentConnections = 2 * HttpPeers.Most;
        limits.MaxConcurrentUpgradedConnections = 0;
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(5);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(75);
        limits.MinResponseDataRate = new MinDataRate(bytesPerSecond: 1024, gracePeriod: TimeSpan.FromSeconds(5));
        options.Listen(_listen, endpoint => endpoint.Protocols = HttpProtocols.Http1);
        return new KestrelServer(Options.Create(options), new PatientTransport(backlog: 256, _peers, _loggers), _loggers);
    }

    private async Task HandleAsync(HttpContext context)
    {
        var request = context.Request;
        var headers = context.Response.Headers;
        headers.CacheControl = "no-store";
        headers.XContentTypeOptions = "nosniff";
        headers.ContentSecurityPolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

        if (!HttpMethods.IsGet(request.Method) && !HttpMethods.IsHead(request.Method))
        {
            headers.Allow = "GET, HEAD";
            headers.Connection = "close";
            await Plain(context, 405, "only GET and HEAD");
        }
        else if (request.ContentLength > 0 || request.Headers.TransferEncoding.Count > 0)
        {
            headers.Connection = "close";
            await Plain(context, 413, "no request here has a body");
        }
        else if (request.Host.HasValue && !await _names.IncludeAsync(request.Host.Host))
        {
            // A name that resolves to us but is not ours: a web page of a stranger, by DNS rebinding. HTTP/1.0 clients, such as old
            // monitoring systems, may send no Host header; browsers, the only ones that can be led here against their user's will,
            // always do.
            await Plain(context, 421, "this host is not known by that name; use its address, or name it in the configuration: [agent] host-names");
        }
        else if (_routes.TryGetValue(request.Path.Value ?? "", out var route))
        {
            await route(context);
        }
        else
        {
            await Plain(context, 404, "not here");
        }
    }

    private async Task Page(HttpContext context)
    {
        await _sources.Refresh(context.RequestAborted);
        var snapshot = _sources.Snapshot();
        await Text(context, 200, "text/html; charset=utf-8", StatusPage.Render(snapshot, _sources.Health(), IsTrusted(context) ? _sources.Incidents(20) : null, _sources.Version));
    }

    private static Task RunbookPage(HttpContext context)
    {
        string? alert = context.Request.Query["alert"];
        return alert is null ? Plain(context, 200, string.Join('\n', Runbook.Alerts))
            : Runbook.Page(alert) is { } page ? Text(context, 200, "text/plain; charset=utf-8", page)
            : Plain(context, 404, "no alert has that name");
    }

    private Task Metrics(HttpContext context)
    {
        var format = ExpositionWriter.Negotiate(context.Request.Headers.Accept.ToString());
        context.Response.Headers.Vary = "Accept";
        return Bytes(context, 200, ExpositionWriter.ContentType(format), _sources.Metrics(format));
    }

    private Task Healthz(HttpContext context)
    {
        var health = _sources.Health();
        return health.IsTicking
            ? Plain(context, 200, "ok")
            : Plain(context, 503, string.Create(CultureInfo.InvariantCulture, $"the loop has not run for {health.SinceLastTick.TotalSeconds:F1} s"));
    }

    private Task Readyz(HttpContext context)
    {
        var health = _sources.Health();
        if (!health.FirstScanDone)
        {
            return Plain(context, 503, "the first scan is not done yet");
        }

        return health.NotPossible.Count == 0
            ? Plain(context, 200, "ready")
            : Plain(context, 503, "not possible here: " + string.Join("; ", health.NotPossible.Select(Printable.Escape)));
    }

    /// <summary>Whose a connection is and what its owner does is for those alone who may ask the control socket too.</summary>
    private bool IsTrusted(HttpContext context) => _peers.UserOf(context.Connection.Id) is { } user && _maySeeDetails(user);

    private static Task NotTrusted(HttpContext context) =>
        Plain(context, 403, "connections and incidents are shown to root, to the agent's user and to members of its group, on this host; /api/v1/paths, /metrics and /check are for all");

    private Task Connections(HttpContext context)
    {
        if (!IsTrusted(context))
        {
            return NotTrusted(context);
        }

        var query = context.Request.Query;
        string? upstream = query["upstream"], verdict = query["verdict"];
        return Large(context, body => ApiJson.WriteConnectionsAsync(body.BodyWriter, _sources.Snapshot()!, upstream, verdict, context.RequestAborted));
    }

    private Task UpstreamPaths(HttpContext context) =>
        Large(context, body => ApiJson.WritePathsAsync(body.BodyWriter, _sources.Snapshot()!, context.RequestAborted));

    private Task Incidents(HttpContext context)
    {
        if (!IsTrusted(context))
        {
            return NotTrusted(context);
        }

        var last = 100;
        if (context.Request.Query.TryGetValue("last", out var asked)
            && !(int.TryParse(asked.ToString(), NumberStyles.None, CultureInfo.InvariantCulture, out last) && last is >= 1 and <= 1000))
        {
            return Plain(context, 400, "last is a number from 1 to 1000");
        }

        return Large(context, body => ApiJson.WriteIncidentsAsync(body.BodyWriter, _sources.Incidents(last), context.RequestAborted), needsSnapshot: false);
    }

    private async Task Check(HttpContext context, Func<AgentSnapshot?, LoopHealth, string?, (int Status, string Line)> check, string parameter = "upstream")
    {
        await _sources.Refresh(context.RequestAborted);
        string? only = context.Request.Query[parameter];
        var (status, line) = check(_sources.Snapshot(), _sources.Health(), only);
        await Plain(context, status, line);
    }

    private async Task Large(HttpContext context, Func<HttpResponse, Task> write, bool needsSnapshot = true)
    {
        if (needsSnapshot)
        {
            await _sources.Refresh(context.RequestAborted);
        }

        if (needsSnapshot && _sources.Snapshot() is null)
        {
            await Plain(context, 503, "the first scan is not done yet");
            return;
        }

        if (!await _largeAnswers.WaitAsync(TimeSpan.FromSeconds(2), context.RequestAborted))
        {
            context.Response.Headers.RetryAfter = "2";
            await Plain(context, 503, "too many readers at once");
            return;
        }

        try
        {
            context.Response.ContentType = "application/json; charset=utf-8";
            if (HttpMethods.IsGet(context.Request.Method))
            {
                await write(context.Response);
            }
        }
        finally
        {
            _largeAnswers.Release();
        }
    }

    private static Task Plain(HttpContext context, int status, string line) => Text(context, status, "text/plain; charset=utf-8", line + "\n");

    private static Task Text(HttpContext context, int status, string type, string text) => Bytes(context, status, type, Encoding.UTF8.GetBytes(text));

    private static Task Bytes(HttpContext context, int status, string type, byte[] bytes)
    {
        var response = context.Response;
        response.StatusCode = status;
        response.ContentType = type;
        response.ContentLength = bytes.Length;
        return HttpMethods.IsHead(context.Request.Method) ? Task.CompletedTask : response.Body.WriteAsync(bytes, context.RequestAborted).AsTask();
    }

    /// <summary>What Kestrel calls for each request.</summary>
    private sealed class Application(HttpEndpoint endpoint) : IHttpApplication<HttpContext>
    {
        public HttpContext CreateContext(IFeatureCollection contextFeatures) => new DefaultHttpContext(contextFeatures);

        public async Task ProcessRequestAsync(HttpContext context)
        {
            var connection = context.Connection.Id;
            endpoint._peers.Note(connection, isBusy: true);
            try
            {
                await endpoint.HandleAsync(context);
            }
            catch (Exception e) when (e is OperationCanceledException or IOException or ConnectionResetException || context.RequestAborted.IsCancellationRequested)
            {
                // The client went away.
            }
            finally
            {
                endpoint._peers.Note(connection, isBusy: false);
            }
        }

        public void DisposeContext(HttpContext context, Exception? exception)
        {
            // Nothing of the context outlives the request.
        }
    }
}
