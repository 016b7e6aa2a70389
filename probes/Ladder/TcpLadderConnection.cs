using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Probes.Ladder;

/// <summary>
/// A plain TCP connection. What an unknown server makes of application data is not known, so none is sent unless the
/// caller gives some.
/// </summary>
public sealed class TcpLadderConnection : LadderConnection
{
    private readonly Socket _socket;
    private readonly ReadOnlyMemory<byte> _payload;

    private TcpLadderConnection(Socket socket, OwnSocket own, ReadOnlyMemory<byte> payload)
        : base(own)
    {
        _socket = socket;
        _payload = payload;
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

        var connection = new TcpLadderConnection(socket, own, payload);
        await connection.SettleAsync(cancellation);
        return connection;
    }

    /// <summary>Whether a fresh connection can be made within <paramref name="patience"/>. It is closed at once.</summary>
    public static async Task<bool> CanConnectAsync(NetworkNamespace? network, IPEndPoint endpoint, TimeSpan patience, CancellationToken cancellation)
    {
        try
        {
            using var socket = await ConnectAsync(network, endpoint, patience, cancellation);
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

            await _socket.SendAsync(_payload, cancellation);
            for (var start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < patience;)
            {
                await Task.Delay(15, cancellation);
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
                    await DrainAsync(cancellation);
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
        _socket.Dispose();
        return ValueTask.CompletedTask;
    }

    /// <summary>Takes in what the server says, so that its window stays open.</summary>
    private async Task DrainAsync(CancellationToken cancellation)
    {
        var buffer = new byte[4096];
        while (_socket.Available > 0 && await _socket.ReceiveAsync(buffer, cancellation) > 0)
        {
        }
    }

    private static async Task<Socket> ConnectAsync(NetworkNamespace? network, IPEndPoint endpoint, TimeSpan patience, CancellationToken cancellation)
    {
        var socket = network?.CreateTcpSocket(endpoint.AddressFamily) ?? new Socket(endpoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        socket.NoDelay = true;
        try
        {
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
}
