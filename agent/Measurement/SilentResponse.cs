using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Text;
using System.Text.Json.Serialization;
using Sidecar.Agent.Configuration;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>How a response that was silent ended.</summary>
internal enum ResponseEnd
{
    /// <summary>The application answered: nothing on the way ended it.</summary>
    Answer,

    /// <summary>Something on the way answered for it: 408, 502, 503 or 504.</summary>
    Status,

    /// <summary>The connection was closed (FIN) before the answer was whole.</summary>
    Fin,

    /// <summary>The connection was reset (RST).</summary>
    Reset,

    /// <summary>Forgotten: nothing came, and the connection is dead although nobody has ended it.</summary>
    Silence,

    /// <summary>The longest time was over, and the connection still lived.</summary>
    Waiting,
}

/// <summary>What came of one slow request.</summary>
internal sealed record SilentResponseReport
{
    /// <summary>Scheme, host, port and path; a query may be a secret and is left out.</summary>
    public required string Url { get; init; }

    public required string Address { get; init; }

    public required ResponseEnd End { get; init; }

    /// <summary>The longest time without a byte: how long the silence was survived.</summary>
    public required TimeSpan Silent { get; init; }

    /// <summary>From the request to the end.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>HTTP status; null where none came.</summary>
    public required int? Status { get; init; }

    /// <summary>The Server header of the answer, which tells who gave it; null where there is none.</summary>
    public required string? Server { get; init; }

    public required long Bytes { get; init; }

    /// <summary>True when it was stopped before it had ended.</summary>
    public required bool Interrupted { get; init; }

    public string EndName => End switch
    {
        ResponseEnd.Answer => "answer",
        ResponseEnd.Status => "status",
        ResponseEnd.Fin => "fin",
        ResponseEnd.Reset => "reset",
        ResponseEnd.Silence => "silence",
        _ => "waiting",
    };
}

/// <summary>
/// Asks for a URL that takes its time, once, and watches what ends the silence: written by hand, because an HTTP client hides
/// a FIN from a RST, asks again on its own, and closes by timeouts of its own.
/// </summary>
internal static class SilentResponse
{
    private const int MostHeader = 64 * 1024;
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(10);

    /// <summary>How long a probe of a connection that may be dead is given: three keepalives, one second apart.</summary>
    private static readonly TimeSpan ProbeTime = TimeSpan.FromSeconds(6);

    /// <summary>Runs it.</summary>
    /// <param name="url">http or https, without user information.</param>
    /// <param name="max">Longest silence to wait for.</param>
    /// <param name="progress">Told how long it has been silent, about once a second.</param>
    /// <param name="cancellation">Ends it with what is known.</param>
    /// <exception cref="MeasurementException">It cannot be asked at all.</exception>
    public static async Task<SilentResponseReport> RunAsync(Uri url, TimeSpan max, Action<TimeSpan>? progress, CancellationToken cancellation)
    {
        var address = await ResolveAsync(url, cancellation).ConfigureAwait(false);
        using var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        var stream = await ConnectAsync(socket, url, address, cancellation).ConfigureAwait(false);
        await using (stream.ConfigureAwait(false))
        {
            var watch = new Watch(url, address, socket, stream, max, progress);
            return await watch.RunAsync(cancellation).ConfigureAwait(false);
        }
    }

    private static async Task<IPEndPoint> ResolveAsync(Uri url, CancellationToken cancellation)
    {
        try
        {
            var addresses = await Dns.GetHostAddressesAsync(url.DnsSafeHost, cancellation).ConfigureAwait(false);
            return addresses.Length > 0 ? new IPEndPoint(addresses[0], url.Port) : throw new MeasurementException($"{url.Host}: has no address");
        }
        catch (SocketException e)
        {
            throw new MeasurementException($"{url.Host}: {e.Message}");
        }
    }

    private static async Task<Stream> ConnectAsync(Socket socket, Uri url, IPEndPoint address, CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(ConnectTimeout);
        var name = EndpointSyntax.Format(address);
        try
        {
            await socket.ConnectAsync(address, deadline.Token).ConfigureAwait(false);
            var stream = new NetworkStream(socket, ownsSocket: false);
            if (url.Scheme != Uri.UriSchemeHttps)
            {
                return stream;
            }

            var secure = new SslStream(stream, leaveInnerStreamOpen: false);
            await secure.AuthenticateAsClientAsync(new SslClientAuthenticationOptions { TargetHost = url.DnsSafeHost }, deadline.Token).ConfigureAwait(false);
            return secure;
        }
        catch (OperationCanceledException)
        {
            throw new MeasurementException(cancellation.IsCancellationRequested ? "ended before it was connected" : $"{name}: cannot connect: no answer within {ConnectTimeout.TotalSeconds:0} s");
        }
        catch (Exception e) when (e is SocketException or AuthenticationException or IOException)
        {
            throw new MeasurementException($"{name}: cannot connect: {e.Message}");
        }
    }

    /// <summary>One request under way.</summary>
    private sealed class Watch(Uri url, IPEndPoint address, Socket socket, Stream stream, TimeSpan max, Action<TimeSpan>? progress)
    {
        private readonly Stopwatch _clock = new();
        private readonly StringBuilder _header = new();
        private TimeSpan _lastByte;
        private TimeSpan _silent;
        private long _bytes;
        private long _body = -1;
        private string _tail = "";

        public async Task<SilentResponseReport> RunAsync(CancellationToken cancellation)
        {
            var request = string.Create(CultureInfo.InvariantCulture, $"GET {url.PathAndQuery} HTTP/1.1\r\nHost: {url.Authority}\r\nUser-Agent: conn-sidecar\r\nAccept: */*\r\nConnection: close\r\n\r\n");
            var buffer = new byte[16 * 1024];
            _clock.Start();
            try
            {
                await stream.WriteAsync(Encoding.ASCII.GetBytes(request), cancellation).ConfigureAwait(false);
                while (true)
                {
                    using var reading = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                    var read = stream.ReadAsync(buffer, reading.Token).AsTask();
                    var end = await WaitAsync(read, cancellation).ConfigureAwait(false);
                    if (end is { } ended)
                    {
                        await reading.CancelAsync().ConfigureAwait(false);
                        await ((Task)read).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                        return Report(ended, cancellation.IsCancellationRequested);
                    }

                    var length = await read.ConfigureAwait(false);
                    if (length == 0)
                    {
                        return Report(AtEndOfStream(), interrupted: false);
                    }

                    Note(buffer.AsSpan(0, length));
                    if (IsWhole())
                    {
                        return Report(AtEndOfStream(), interrupted: false);
                    }
                }
            }
            catch (OperationCanceledException)
            {
                return Report(ResponseEnd.Waiting, interrupted: true);
            }
            catch (IOException e)
            {
                // The kernel gave up: what was sent, or a probe, was never acknowledged.
                return Report(e.InnerException is SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.HostUnreachable or SocketError.NetworkUnreachable } ? ResponseEnd.Silence : ResponseEnd.Reset, interrupted: false);
            }
        }

        /// <summary>Waits for bytes; an end where the longest time is over first.</summary>
        private async Task<ResponseEnd?> WaitAsync(Task read, CancellationToken cancellation)
        {
            while (!read.IsCompleted)
            {
                var silent = _clock.Elapsed - _lastByte;
                if (silent >= max)
                {
                    _silent = silent > _silent ? silent : _silent;
                    return await IsDeadAsync(read).ConfigureAwait(false) ? ResponseEnd.Silence : ResponseEnd.Waiting;
                }

                if (cancellation.IsCancellationRequested)
                {
                    _silent = silent > _silent ? silent : _silent;
                    return ResponseEnd.Waiting;
                }

                progress?.Invoke(silent);
                var left = max - silent;
                await Task.WhenAny(read, Task.Delay(left < TimeSpan.FromSeconds(1) ? left : TimeSpan.FromSeconds(1), cancellation)).ConfigureAwait(false);
            }

            return null;
        }

        /// <summary>
        /// Whether the connection is forgotten: keepalives, which are switched on now only so that they keep nothing alive
        /// before, are answered on a living one.
        /// </summary>
        private async Task<bool> IsDeadAsync(Task read)
        {
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 3);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 1);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 1);
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
            await Task.WhenAny(read, Task.Delay(ProbeTime)).ConfigureAwait(false);
            return read.IsFaulted;
        }

        private void Note(ReadOnlySpan<byte> bytes)
        {
            var now = _clock.Elapsed;
            _silent = now - _lastByte > _silent ? now - _lastByte : _silent;
            _lastByte = now;
            _bytes += bytes.Length;
            var text = Encoding.Latin1.GetString(bytes);
            if (_body >= 0)
            {
                _body += text.Length;
            }
            else if (_header.Length < MostHeader)
            {
                _header.Append(text);
                var whole = _header.ToString();
                var end = whole.IndexOf("\r\n\r\n", StringComparison.Ordinal);
                if (end >= 0)
                {
                    _body = whole.Length - end - 4;
                    text = whole[(end + 4)..];
                    _header.Length = end + 2;
                }
            }

            _tail = (_tail + text)[Math.Max(0, _tail.Length + text.Length - 5)..];
        }

        private string? Header(string name)
        {
            foreach (var line in _header.ToString().Split("\r\n").Skip(1))
            {
                var colon = line.IndexOf(':', StringComparison.Ordinal);
                if (colon > 0 && line.AsSpan(0, colon).Equals(name, StringComparison.OrdinalIgnoreCase))
                {
                    return line[(colon + 1)..].Trim();
                }
            }

            return null;
        }

        private int? Status()
        {
            var words = _header.ToString().Split(' ', 3);
            return words.Length >= 2 && words[0].StartsWith("HTTP/", StringComparison.Ordinal)
                && int.TryParse(words[1].AsSpan(0, Math.Min(3, words[1].Length)), NumberStyles.None, CultureInfo.InvariantCulture, out var status) ? status : null;
        }

        /// <summary>Everything that was promised has come; the connection need not be waited for.</summary>
        private bool IsWhole() => _body >= 0 && (
            (long.TryParse(Header("Content-Length"), NumberStyles.None, CultureInfo.InvariantCulture, out var length) && _body >= length)
            || (IsChunked() && _tail == "0\r\n\r\n"));

        private bool IsChunked() => Header("Transfer-Encoding")?.Contains("chunked", StringComparison.OrdinalIgnoreCase) == true;

        private ResponseEnd AtEndOfStream()
        {
            var gap = _clock.Elapsed - _lastByte;
            if (_body < 0)
            {
                _silent = gap > _silent ? gap : _silent;
                return ResponseEnd.Fin;
            }

            // Without a length the end of the connection is the end of the answer.
            if ((Header("Content-Length") is not null || IsChunked()) && !IsWhole())
            {
                _silent = gap > _silent ? gap : _silent;
                return ResponseEnd.Fin;
            }

            return Status() is 408 or 502 or 503 or 504 ? ResponseEnd.Status : ResponseEnd.Answer;
        }

        private SilentResponseReport Report(ResponseEnd end, bool interrupted)
        {
            var elapsed = _clock.Elapsed;
            if (end == ResponseEnd.Reset || (end == ResponseEnd.Silence && _silent == TimeSpan.Zero))
            {
                _silent = elapsed - _lastByte > _silent ? elapsed - _lastByte : _silent;
            }

            return new SilentResponseReport
            {
                Url = UrlOf(url),
                Address = EndpointSyntax.Format(address),
                End = end,
                Silent = _silent,
                Elapsed = elapsed,
                Status = _body >= 0 ? Status() : null,
                Server = _body >= 0 && Header("Server") is { Length: > 0 and <= 100 } server ? Printable.Escape(server) : null,
                Bytes = _bytes,
                Interrupted = interrupted,
            };
        }
    }

    /// <summary>A URL without its query.</summary>
    internal static string UrlOf(Uri url) => url.GetComponents(UriComponents.SchemeAndServer | UriComponents.Path, UriFormat.UriEscaped);
}

/// <summary>The report as <c>measure --http --json</c> prints it.</summary>
internal sealed record SilentResponseDocument
{
    [JsonPropertyName("url")] public required string Url { get; init; }

    [JsonPropertyName("address")] public required string Address { get; init; }

    [JsonPropertyName("ended_by")] public required string EndedBy { get; init; }

    [JsonPropertyName("silent_seconds")] public required double SilentSeconds { get; init; }

    [JsonPropertyName("elapsed_seconds")] public required double ElapsedSeconds { get; init; }

    [JsonPropertyName("status")] public required int? Status { get; init; }

    [JsonPropertyName("server")] public required string? Server { get; init; }

    [JsonPropertyName("bytes")] public required long Bytes { get; init; }

    [JsonPropertyName("interrupted")] public required bool Interrupted { get; init; }

    public static SilentResponseDocument From(SilentResponseReport report) => new()
    {
        Url = report.Url,
        Address = report.Address,
        EndedBy = report.EndName,
        SilentSeconds = Math.Round(report.Silent.TotalSeconds, 3),
        ElapsedSeconds = Math.Round(report.Elapsed.TotalSeconds, 3),
        Status = report.Status,
        Server = report.Server,
        Bytes = report.Bytes,
        Interrupted = report.Interrupted,
    };
}

[JsonSerializable(typeof(SilentResponseDocument))]
[JsonSourceGenerationOptions(WriteIndented = true)]
internal sealed partial class SilentResponseJson : JsonSerializerContext;
