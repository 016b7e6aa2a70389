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
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Where the endpoint takes its answers from. None of these may wait for a look: they return what the last one left.
/// </summary>
internal sealed record HttpSources
{
    /// <summary>The last look; null before the first.</summary>
    public required Func<AgentSnapshot?> Snapshot { get; init; }

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

    private readonly HttpSources sources;
    private readonly ILoggerFactory loggers;
    private readonly ILogger logger;
    private readonly IPEndPoint listen;
    private readonly TimeSpan retryAfter;
    private readonly CancellationTokenSource stopping = new();
    private readonly FrozenDictionary<string, Func<HttpContext, Task>> routes;
    private readonly FrozenSet<string> hostNames;

    // Answers whose size grows with the number of connections: a few at a time bound the memory that readers can hold.
    private readonly SemaphoreSlim largeAnswers = new(4);

    private KestrelServer? server;
    private Task retrying = Task.CompletedTask;

    public HttpEndpoint(IPEndPoint listen, HttpSources sources, ILoggerFactory loggers, TimeSpan? retryAfter = null)
    {
        this.listen = listen;
        this.sources = sources;
        this.loggers = loggers;
        this.retryAfter = retryAfter ?? RetryAfter;
        logger = loggers.CreateLogger("http");
        hostNames = new[] { "localhost", Dns.GetHostName(), Dns.GetHostName().Split('.')[0] }.ToFrozenSet(StringComparer.OrdinalIgnoreCase);
        routes = new Dictionary<string, Func<HttpContext, Task>>(StringComparer.Ordinal)
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
            ["/check/host"] = context => Plain(context, 200, Dns.GetHostName()),
        }.ToFrozenDictionary(StringComparer.Ordinal);
    }

    /// <summary>The address in use (with the port the kernel chose, where 0 was asked for); null while not bound.</summary>
    public IPEndPoint? Bound { get; private set; }

    /// <summary>The paths that are answered.</summary>
    public IReadOnlyCollection<string> Paths => routes.Keys;

    /// <summary>Why the endpoint is not there, for the agent's list of limitations; null while it is.</summary>
    public string? Problem { get; private set; }

    /// <summary>Binds, or begins to try again every ten seconds. Never throws.</summary>
    public async Task StartAsync()
    {
        if (!await TryBindAsync())
            retrying = RetryAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await stopping.CancelAsync();
        await retrying;
        if (server is not null)
        {
            // Readers that are slow to take their answer do not keep the agent from ending.
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(1));
            await server.StopAsync(patience.Token);
            server.Dispose();
        }

        Bound = null;
        largeAnswers.Dispose();
        stopping.Dispose();
    }

    private async Task RetryAsync()
    {
        using var timer = new PeriodicTimer(retryAfter);
        try
        {
            while (await timer.WaitForNextTickAsync(stopping.Token))
            {
                if (await TryBindAsync())
                    return;
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
            await attempt.StartAsync(new Application(this), stopping.Token);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            attempt.Dispose();
            var reason = (e.InnerException ?? e).Message;
            if (Problem is null)
                logger.LogError("cannot listen on {Address}: {Reason}; trying again every {Seconds} s", listen, reason, retryAfter.TotalSeconds);
            Problem = $"no metrics or status endpoint: cannot listen on {listen}: {reason}";
            return false;
        }

        server = attempt;
        var address = new Uri(attempt.Features.GetRequiredFeature<IServerAddressesFeature>().Addresses.First());
        Bound = new IPEndPoint(listen.Address, address.Port);
        Problem = null;
        logger.LogInformation("listening on {Address}", Bound);
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
        // Beyond these Kestrel closes a new connection at once. Room for a fleet of scrapers beside clients that dawdle.
        limits.MaxConcurrentConnections = 256;
        limits.MaxConcurrentUpgradedConnections = 0;
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(5);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(75);
        limits.MinResponseDataRate = new MinDataRate(bytesPerSecond: 1024, gracePeriod: TimeSpan.FromSeconds(5));
        options.Listen(listen, endpoint => endpoint.Protocols = HttpProtocols.Http1);
        return new KestrelServer(Options.Create(options), new PatientTransport(backlog: 256, loggers), loggers);
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
        else if (!IsOurHost(request.Host))
        {
            // A name that resolves to us but is not ours: a web page of a stranger, by DNS rebinding.
            await Plain(context, 421, "this host is not known by that name; use its address");
        }
        else if (routes.TryGetValue(request.Path.Value ?? "", out var route))
        {
            await route(context);
        }
        else
        {
            await Plain(context, 404, "not here");
        }
    }

    // HTTP/1.0 clients, such as old monitoring systems, may send no Host header; browsers, the only ones that can be
    // led here against their user's will, always do.
    private bool IsOurHost(HostString host) =>
        !host.HasValue || hostNames.Contains(host.Host) || IPAddress.TryParse(host.Host.Trim('[', ']'), out _);

    private Task Page(HttpContext context) =>
        Text(context, 200, "text/html; charset=utf-8", StatusPage.Render(sources.Snapshot(), sources.Health(), sources.Incidents(20), sources.Version));

    private Task Metrics(HttpContext context)
    {
        var format = ExpositionWriter.Negotiate(context.Request.Headers.Accept.ToString());
        context.Response.Headers.Vary = "Accept";
        return Bytes(context, 200, ExpositionWriter.ContentType(format), sources.Metrics(format));
    }

    private Task Healthz(HttpContext context)
    {
        var health = sources.Health();
        return health.Turns
            ? Plain(context, 200, "ok")
            : Plain(context, 503, string.Create(CultureInfo.InvariantCulture, $"the loop has not turned for {health.SinceLastTurn.TotalSeconds:F1} s"));
    }

    private Task Readyz(HttpContext context)
    {
        var health = sources.Health();
        if (!health.FirstLookDone)
            return Plain(context, 503, "the first look is not done yet");
        return health.NotPossible.Count == 0
            ? Plain(context, 200, "ready")
            : Plain(context, 503, "not possible here: " + string.Join("; ", health.NotPossible.Select(Printable.Escape)));
    }

    private Task Connections(HttpContext context)
    {
        var query = context.Request.Query;
        string? upstream = query["upstream"], verdict = query["verdict"];
        return Large(context, body => ApiJson.WriteConnectionsAsync(body.BodyWriter, sources.Snapshot()!, upstream, verdict, context.RequestAborted));
    }

    private Task UpstreamPaths(HttpContext context) =>
        Large(context, body => ApiJson.WritePathsAsync(body.BodyWriter, sources.Snapshot()!, context.RequestAborted));

    private Task Incidents(HttpContext context)
    {
        var last = 100;
        if (context.Request.Query.TryGetValue("last", out var asked)
            && !(int.TryParse(asked.ToString(), NumberStyles.None, CultureInfo.InvariantCulture, out last) && last is >= 1 and <= 1000))
            return Plain(context, 400, "last is a number from 1 to 1000");
        return Large(context, body => ApiJson.WriteIncidentsAsync(body.BodyWriter, sources.Incidents(last), context.RequestAborted), needsSnapshot: false);
    }

    private Task Check(HttpContext context, Func<AgentSnapshot?, LoopHealth, string?, (int Status, string Line)> check, string parameter = "upstream")
    {
        string? only = context.Request.Query[parameter];
        var (status, line) = check(sources.Snapshot(), sources.Health(), only);
        return Plain(context, status, line);
    }

    private async Task Large(HttpContext context, Func<HttpResponse, Task> write, bool needsSnapshot = true)
    {
        if (needsSnapshot && sources.Snapshot() is null)
        {
            await Plain(context, 503, "the first look is not done yet");
            return;
        }

        if (!await largeAnswers.WaitAsync(TimeSpan.FromSeconds(2), context.RequestAborted))
        {
            context.Response.Headers.RetryAfter = "2";
            await Plain(context, 503, "too many readers at once");
            return;
        }

        try
        {
            context.Response.ContentType = "application/json; charset=utf-8";
            if (HttpMethods.IsGet(context.Request.Method))
                await write(context.Response);
        }
        finally
        {
            largeAnswers.Release();
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
            try
            {
                await endpoint.HandleAsync(context);
            }
            catch (Exception e) when (e is OperationCanceledException or IOException or ConnectionResetException || context.RequestAborted.IsCancellationRequested)
            {
                // The client went away.
            }
        }

        public void DisposeContext(HttpContext context, Exception? exception)
        {
            // Nothing of the context outlives the request.
        }
    }
}
