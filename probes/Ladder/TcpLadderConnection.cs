using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Probes.Ladder;

/// <summary>The application data of a plain TCP connection: a socket's, or simulated in tests.</summary>
public interface IPayloadStream : IDisposable
{
    /// <summary>Sends.</summary>
    /// <exception cref="SocketException">The connection has ended.</exception>
    Task SendAsync(ReadOnlyMemory<byte> payload, CancellationToken cancellation);

    /// <summary>Takes in what the server says, so that its window stays open.</summary>
    Task DrainAsync(CancellationToken cancellation);
}

/// <summary>
/// A plain TCP connection. What an unknown server makes of application data is not known, so none is sent unless the
/// caller gives some.
/// </summary>
public sealed class TcpLadderConnection : LadderConnection
{
    private readonly IPayloadStream _stream;
    private readonly ReadOnlyMemory<byte> _payload;
    private readonly TimeProvider _clock;

    /// <summary>Takes a connection that has just been made.</summary>
    /// <param name="socket">What is known of its segments.</param>
    /// <param name="stream">Its application data.</param>
    /// <param name="payload">Application data that does no harm, or nothing.</param>
    /// <param name="clock">By which it idles.</param>
    public TcpLadderConnection(ILadderSocket socket, IPayloadStream stream, ReadOnlyMemory<byte> payload, TimeProvider clock)
        : base(socket, clock)
    {
        _stream = stream;
        _payload = payload;
        _clock = clock;
    }

    public override bool HasPayload => !_payload.IsEmpty;

    /// <summary>Connects and settles.</summary>
    /// <param name="network">Where the connection is made; null: where this process lives.</param>
    /// <param name="payload">Application data that does no harm, or nothing.</param>
    /// <exception cref="SocketException">No connection within <paramref name="patience"/> (TimedOut), or refused.</exception>
    public static async Task<TcpLadderConnection> OpenAsync(
        NetworkNamespace? network, IPEndPoint endpoint, ReadOnlyMemory<byte> payload, TimeSpan patience, CancellationToken cancellation)
    {
        var socket = await ConnectAsync(network, endpoint, patience, cancellation);
        var own = OwnSocket.FromDescriptor((int)socket.Handle);
        if (own is null)
        {
            socket.Dispose();
            throw new SocketException((int)SocketError.NotSocket);
        }

        var connection = new TcpLadderConnection(own, new SocketStream(socket), payload, TimeProvider.System);
        await connection.SettleAsync(cancellation);
        return connection;
    }

    /// <summary>Whether a fresh connection can be made within <paramref name="patience"/>. It is closed at once.</summary>
    /// <param name="port">
    /// The local port of a connection that the path has forgotten, and that has been closed; 0: any. A server that still holds that
    /// one answers the SYN by an acknowledgement (RFC 5961), and our RST ends it there (RFC 9293, half-open connections).
    /// </param>
    public static async Task<bool> CanConnectAsync(NetworkNamespace? network, IPEndPoint endpoint, int port, TimeSpan patience, CancellationToken cancellation)
    {
        try
        {
            using var socket = await ConnectAsync(network, endpoint, patience, cancellation, port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    public override async Task<ExchangeOutcome> ExchangeAsync(TimeSpan patience, CancellationToken cancellation)
    {
        if (_payload.IsEmpty)
        {
            return ExchangeOutcome.NotPossible;
        }

        try
        {
            if (!Socket.TryReadInfo(out var before))
            {
                return ExchangeOutcome.Disturbed;
            }

            await _stream.SendAsync(_payload, cancellation);
            for (var start = _clock.GetTimestamp(); _clock.GetElapsedTime(start) < patience;)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(15), _clock, cancellation);
                if (!Socket.TryReadInfo(out var now))
                {
                    return ExchangeOutcome.Disturbed;
                }

                if (now.State == OwnSocketInfo.Closed)
                {
                    return ExchangeOutcome.Reset;
                }

                if (now.State != OwnSocketInfo.Established)
                {
                    return ExchangeOutcome.PeerClosed;
                }

                // An acknowledgement may be that of a proxy, and of a server that is gone behind it: bytes are the server's.
                if (now.BytesReceived != before.BytesReceived)
                {
                    await _stream.DrainAsync(cancellation);
                    return ExchangeOutcome.Answered;
                }
            }

            return ExchangeOutcome.Silent;
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode is SocketError.ConnectionReset ? ExchangeOutcome.Reset : ExchangeOutcome.PeerClosed;
        }
    }

    protected override ValueTask CloseAsync()
    {
        _stream.Dispose();
        return ValueTask.CompletedTask;
    }

    private static async Task<Socket> ConnectAsync(NetworkNamespace? network, IPEndPoint endpoint, TimeSpan patience, CancellationToken cancellation, int port = 0)
    {
        var socket = network?.CreateTcpSocket(endpoint.AddressFamily) ?? new Socket(endpoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        socket.NoDelay = true;
        try
        {
            if (port != 0)
            {
                socket.Bind(new IPEndPoint(endpoint.AddressFamily == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any, port));
            }

            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(patience);
            await socket.ConnectAsync(endpoint, limit.Token);
            return socket;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            socket.Dispose();
            throw new SocketException((int)SocketError.TimedOut);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private sealed class SocketStream(Socket socket) : IPayloadStream
    {
        public async Task SendAsync(ReadOnlyMemory<byte> payload, CancellationToken cancellation) => await socket.SendAsync(payload, cancellation);

        public async Task DrainAsync(CancellationToken cancellation)
        {
            var buffer = new byte[4096];
            while (socket.Available > 0 && await socket.ReceiveAsync(buffer, cancellation) > 0)
            {
            }
        }

        public void Dispose() => socket.Dispose();
    }
}
