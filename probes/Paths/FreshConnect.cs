using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Sockets;

namespace Sidecar.Probes.Paths;

/// <summary>How a fresh connection ended.</summary>
public enum FreshConnectOutcome
{
    /// <summary>The handshake was completed.</summary>
    Connected,

    /// <summary>RST: the host answers, nothing listens, or a firewall rejects.</summary>
    Refused,

    /// <summary>Nothing came back in time.</summary>
    TimedOut,

    /// <summary>No route, or an ICMP error.</summary>
    Unreachable,

    /// <summary>The attempt could not be made here (descriptors, ports, permission): says nothing about the path.</summary>
    NotTried,
}

/// <summary>Result of a fresh connection to an endpoint.</summary>
/// <param name="Outcome">How it ended.</param>
/// <param name="Started">Stopwatch timestamp at which the SYN was sent.</param>
/// <param name="Ended">Stopwatch timestamp at which the outcome was known.</param>
/// <param name="SynRetransmissions">SYNs that had to be sent again; 0 on a clean path.</param>
/// <param name="Detail">The error as the system names it, or null.</param>
public sealed record FreshConnectResult(FreshConnectOutcome Outcome, long Started, long Ended, int SynRetransmissions, string? Detail)
{
    /// <summary>Time from SYN to outcome.</summary>
    public TimeSpan Elapsed => Stopwatch.GetElapsedTime(Started, Ended);
}

/// <summary>
/// Opens a TCP connection of the agent's own to see whether path and server are up, and closes it at once. No data is
/// sent. It is made in the worker's network namespace and from the worker's own source address, so that it takes the
/// same route through the same middleboxes.
/// </summary>
public static class FreshConnect
{
    /// <summary>Tries once; never throws for anything the network does.</summary>
    /// <param name="network">The namespace to connect from.</param>
    /// <param name="source">Source address; the port is chosen by the kernel.</param>
    /// <param name="destination">Where to.</param>
    /// <param name="timeout">When to give up.</param>
    /// <param name="cancellation">Ends the attempt as <see cref="FreshConnectOutcome.NotTried"/>.</param>
    public static async Task<FreshConnectResult> TryAsync(
        NetworkNamespace network, IPAddress source, IPEndPoint destination, TimeSpan timeout, CancellationToken cancellation)
    {
        var started = Stopwatch.GetTimestamp();
        SocketCookie? own = null;
        try
        {
            using var socket = network.CreateTcpSocket(destination.AddressFamily);
            if (OwnSocket.FromDescriptor((int)socket.Handle) is { } made)
            {
                own = made.Cookie;
                OwnSockets.Add(made.Cookie);
            }

            socket.NoDelay = true;
            try
            {
                socket.Bind(new IPEndPoint(source, 0));
            }
            catch (SocketException)
            {
                // The address is no longer ours, or ports are used up on it: let the kernel choose.
            }

            // It is closed by a FIN, not by a RST: PostgreSQL logs "connection reset by peer" for the latter, nothing for
            // the former. The TIME_WAIT that stays costs this host a port for a minute, which is cheap at this rate.
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            deadline.CancelAfter(timeout);
            started = Stopwatch.GetTimestamp();
            try
            {
                await socket.ConnectAsync(destination, deadline.Token).ConfigureAwait(false);
                return new FreshConnectResult(FreshConnectOutcome.Connected, started, Stopwatch.GetTimestamp(), ReadRetransmissions(socket), null);
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                return new FreshConnectResult(FreshConnectOutcome.TimedOut, started, Stopwatch.GetTimestamp(), 0, $"no answer within {timeout.TotalSeconds:0.#} s");
            }
        }
        catch (SocketException e)
        {
            var outcome = e.SocketErrorCode switch
            {
                SocketError.ConnectionRefused => FreshConnectOutcome.Refused,
                SocketError.TimedOut => FreshConnectOutcome.TimedOut,
                SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.HostDown or SocketError.NetworkDown or SocketError.ConnectionReset => FreshConnectOutcome.Unreachable,
                _ => FreshConnectOutcome.NotTried,
            };
            return new FreshConnectResult(outcome, started, Stopwatch.GetTimestamp(), 0, e.Message);
        }
        catch (Exception e) when (e is KernelException or OperationCanceledException or ObjectDisposedException or InvalidOperationException)
        {
            return new FreshConnectResult(FreshConnectOutcome.NotTried, started, Stopwatch.GetTimestamp(), 0, e.Message);
        }
        finally
        {
            if (own is { } cookie)
            {
                OwnSockets.Remove(cookie);
            }
        }
    }

    private static int ReadRetransmissions(Socket socket)
    {
        Span<byte> buffer = stackalloc byte[512];
        var length = Libc.GetOption((int)socket.Handle, Libc.SOL_TCP, Libc.TCP_INFO, buffer);
        return length > 0 ? (int)TcpInfo.Read(buffer[..length]).TotalRetransmissions : 0;
    }
}
