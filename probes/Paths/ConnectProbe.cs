using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Paths;

/// <summary>
/// Opens a TCP connection of the agent's own to see whether path and server are up, asks the server itself where its protocol is known, and closes.
/// It is made in the worker's network namespace, from the worker's own source address and from a port as the worker's own connect() takes it, so
/// that it takes the same route through the same middleboxes.
/// </summary>
public static class ConnectProbe
{
    /// <summary>An answer to a window probe is not delayed by the other end.</summary>
    private static readonly TimeSpan AnswerWithin = TimeSpan.FromMilliseconds(30);

    /// <summary>How long the end of the conversation may take; nobody waits for it.</summary>
    private static readonly TimeSpan FarewellTimeout = TimeSpan.FromSeconds(2);

    /// <summary>Tries once; never throws for anything the network does.</summary>
    /// <param name="network">The namespace to connect from.</param>
    /// <param name="source">Source address; the port is chosen by the kernel.</param>
    /// <param name="destination">Where to.</param>
    /// <param name="protocol">What to ask after the handshake.</param>
    /// <param name="timeout">When to give up, handshake and answer together.</param>
    /// <param name="cancellation">Ends the attempt as <see cref="ConnectProbeOutcome.NotTried"/>.</param>
    /// <param name="localPort">The port to connect from, to go the way of an earlier probe again; 0: as connect() takes it.</param>
    /// <param name="testsWindowProbe">Whether a window probe is to be sent on the connection, to see that the other end answers such.</param>
    public static async Task<ConnectProbeResult> TryAsync(
        NetworkNamespace network, IPAddress source, IPEndPoint destination, ConnectProbeProtocol protocol, TimeSpan timeout, CancellationToken cancellation,
        bool testsWindowProbe = false, int localPort = 0)
    {
        var started = Stopwatch.GetTimestamp();
        ProbeSocket? connection = null;
        try
        {
            connection = new ProbeSocket(network.CreateTcpSocket(destination.AddressFamily));
            connection.TryBind(source, localPort);
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            deadline.CancelAfter(timeout);
            started = Stopwatch.GetTimestamp();
            try
            {
                await connection.Socket.ConnectAsync(destination, deadline.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                return new ConnectProbeResult(ConnectProbeOutcome.TimedOut, started, Stopwatch.GetTimestamp(), 0, $"no answer within {timeout.TotalSeconds:0.#} s") { LocalPort = connection.Port };
            }

            var connected = new ConnectProbeResult(ConnectProbeOutcome.Connected, started, Stopwatch.GetTimestamp(), connection.ReadRetransmissions(), null) { LocalPort = connection.Port };
            if (testsWindowProbe)
            {
                connected = connected with { AnswersWindowProbe = await connection.TestWindowProbeAsync(connected.Elapsed, deadline.Token).ConfigureAwait(false) };
            }

            if (protocol == ConnectProbeProtocol.Tcp)
            {
                return connected;
            }

            var (result, answer) = await AskAsync(connection.Socket, connected, protocol, destination, deadline.Token, cancellation).ConfigureAwait(false);
            _ = EndAsync(connection, protocol, answer);
            connection = null;
            return result;
        }
        catch (SocketException e)
        {
            var outcome = e.SocketErrorCode switch
            {
                SocketError.ConnectionRefused => ConnectProbeOutcome.Refused,
                SocketError.TimedOut => ConnectProbeOutcome.TimedOut,
                SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.HostDown or SocketError.NetworkDown or SocketError.ConnectionReset => ConnectProbeOutcome.Unreachable,
                _ => ConnectProbeOutcome.NotTried,
            };
            return new ConnectProbeResult(outcome, started, Stopwatch.GetTimestamp(), 0, e.Message);
        }
        catch (Exception e) when (e is KernelException or OperationCanceledException or ObjectDisposedException or InvalidOperationException)
        {
            return new ConnectProbeResult(ConnectProbeOutcome.NotTried, started, Stopwatch.GetTimestamp(), 0, e.Message);
        }
        finally
        {
            connection?.Dispose();
        }
    }

    /// <summary>
    /// Sends the question and reads until what came back is an answer, or is none. The answer is what a polite end has to know of: null where
    /// there is nobody to be polite to.
    /// </summary>
    private static async Task<(ConnectProbeResult Result, byte[]? Answer)> AskAsync(
        Socket socket, ConnectProbeResult connected, ConnectProbeProtocol protocol, IPEndPoint destination, CancellationToken deadline, CancellationToken cancellation)
    {
        var buffer = new byte[ServerQuestion.MostBytes];
        var length = 0;
        try
        {
            if (ServerQuestion.Request(protocol, destination) is { Length: > 0 } request)
            {
                await socket.SendAsync(request, SocketFlags.None, deadline).ConfigureAwait(false);
            }

            while (true)
            {
                var read = await socket.ReceiveAsync(buffer.AsMemory(length), SocketFlags.None, deadline).ConfigureAwait(false);
                if (read == 0)
                {
                    return (None(length == 0 ? "closed without an answer" : "closed within the answer"), null);
                }

                length += read;
                switch (ServerQuestion.Judge(protocol, buffer.AsSpan(0, length)))
                {
                    case AnswerState.Complete:
                        return (connected with { AnsweredAfter = Stopwatch.GetElapsedTime(connected.Ended) }, buffer[..length]);
                    case AnswerState.Foreign:
                        return (None($"what came back is not {NameOf(protocol)}"), null);
                }
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return (None("the handshake was completed, the server did not answer in time"), buffer[..length]);
        }
        catch (SocketException e)
        {
            return (e.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown
                ? connected with { Outcome = ConnectProbeOutcome.Refused, Detail = "reset before the answer" }
                : None(e.Message), null);
        }

        ConnectProbeResult None(string detail) => connected with { Outcome = ConnectProbeOutcome.NoAnswer, Detail = detail };
    }

    /// <summary>Runs on after the result is known, so that nobody waits for the server's end of the conversation.</summary>
    private static async Task EndAsync(ProbeSocket connection, ConnectProbeProtocol protocol, byte[]? answer)
    {
        using (connection)
        {
            using var deadline = new CancellationTokenSource(FarewellTimeout);
            await ServerFarewell.SayAsync(connection.Socket, protocol, answer, deadline.Token).ConfigureAwait(false);
        }
    }

    private static string NameOf(ConnectProbeProtocol protocol) => protocol switch
    {
        ConnectProbeProtocol.PostgreSql => "PostgreSQL",
        ConnectProbeProtocol.MySql => "MySQL",
        ConnectProbeProtocol.Redis => "Redis",
        ConnectProbeProtocol.Http => "HTTP",
        ConnectProbeProtocol.Tls => "TLS",
        _ => "TCP",
    };

    /// <summary>The socket, known as one of our own for as long as it is open.</summary>
    private sealed class ProbeSocket : IDisposable
    {
        private readonly SocketCookie? _cookie;

        internal ProbeSocket(Socket socket)
        {
            Socket = socket;
            socket.NoDelay = true;
            _cookie = OwnSocket.FromDescriptor((int)socket.Handle)?.Cookie;
            if (_cookie is { } cookie)
            {
                OwnSockets.Add(cookie);
            }
        }

        internal Socket Socket { get; }

        /// <summary>
        /// Binds to the address and leaves the port to connect(). bind() would take an odd one and connect() takes even ones, so a bundle or a
        /// balancer that hashes ports would send the probe another way than the workers (inet_csk_find_open_port, __inet_hash_connect).
        /// </summary>
        internal void TryBind(IPAddress source, int port)
        {
            _ = Libc.TrySetOption(Socket.SafeHandle, Libc.IPPROTO_IP, Libc.IP_BIND_ADDRESS_NO_PORT, port == 0 ? 1 : 0);
            try
            {
                Socket.Bind(new IPEndPoint(source, port));
            }
            catch (SocketException)
            {
                // The port is taken, or the address is no longer ours: let the kernel choose.
            }
        }

        /// <summary>The port in use; the kernel has chosen it once the SYN is out.</summary>
        internal int Port => (Socket.LocalEndPoint as IPEndPoint)?.Port ?? 0;

        internal int ReadRetransmissions() => (int)ReadInfo().TotalRetransmissions;

        /// <summary>
        /// Sends a window probe on this connection and waits for its answer, a segment without data; null where probes are not permitted.
        /// </summary>
        internal async Task<bool?> TestWindowProbeAsync(TimeSpan roundTrip, CancellationToken cancellation)
        {
            var before = ReadInfo();
            if (!Libc.TrySetOption(Socket.SafeHandle, Libc.SOL_TCP, Libc.TCP_REPAIR, Libc.TCP_REPAIR_OFF))
            {
                return null;
            }

            for (var until = Stopwatch.GetTimestamp() + (long)((AnswerWithin + (2 * roundTrip)).TotalSeconds * Stopwatch.Frequency); Stopwatch.GetTimestamp() < until;)
            {
                var info = ReadInfo();
                if (info.SegmentsIn - info.DataSegmentsIn != before.SegmentsIn - before.DataSegmentsIn)
                {
                    return true;
                }

                await Task.Delay(TimeSpan.FromMilliseconds(2), cancellation).ConfigureAwait(false);
            }

            return false;
        }

        private TcpInfo ReadInfo()
        {
            Span<byte> buffer = stackalloc byte[512];
            var length = Libc.GetOption(Socket.SafeHandle, Libc.SOL_TCP, Libc.TCP_INFO, buffer);
            return TcpInfo.Read(buffer[..Math.Max(length, 0)]);
        }

        /// <summary>
        /// It is closed by a FIN, not by a RST: PostgreSQL logs "connection reset by peer" for the latter, nothing for the former. The TIME_WAIT that
        /// stays costs this host a port for a minute, which is cheap at this rate.
        /// </summary>
        public void Dispose()
        {
            Socket.Dispose();
            if (_cookie is { } cookie)
            {
                OwnSockets.Remove(cookie);
            }
        }
    }
}
