using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.Logging;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// Kestrel's own sockets with another accept loop: its own tries again at once when accepting fails, and so would keep a
/// core busy for as long as descriptors are used up and somebody waits in the queue.
/// </summary>
/// <param name="backlog">Connections that may wait to be accepted.</param>
/// <param name="peers">Who is connected.</param>
/// <param name="loggers">For the connections.</param>
internal sealed class PatientTransport(int backlog, HttpPeers peers, ILoggerFactory loggers) : IConnectionListenerFactory
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(200);

    /// <summary>Binds and listens.</summary>
    /// <exception cref="AddressInUseException">The address is taken.</exception>
    /// <exception cref="SocketException">It cannot be bound for another reason.</exception>
    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        Socket? socket = null;
        try
        {
            socket = SocketTransportOptions.CreateDefaultBoundListenSocket(endpoint);
            socket.Listen(backlog);
            var listener = new Listener(socket, peers, new SocketConnectionContextFactory(new SocketConnectionFactoryOptions(), loggers.CreateLogger("http")));
            socket = null;
            return ValueTask.FromResult<IConnectionListener>(listener);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            throw new AddressInUseException(e.Message, e);
        }
        finally
        {
            socket?.Dispose();
        }
    }

    private sealed class Listener(Socket socket, HttpPeers peers, SocketConnectionContextFactory connections) : IConnectionListener
    {
        public EndPoint EndPoint { get; } = socket.LocalEndPoint!;

        public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
        {
            while (true)
            {
                try
                {
                    var accepted = await socket.AcceptAsync(cancellationToken).ConfigureAwait(false);
                    accepted.NoDelay = true;
                    var connection = connections.Create(accepted);
                    peers.Enter(connection, accepted);
                    return connection;
                }
                catch (Exception e) when (e is ObjectDisposedException or OperationCanceledException or SocketException { SocketErrorCode: SocketError.OperationAborted })
                {
                    return null;
                }
                catch (SocketException)
                {
                    // The client has gone already, or there is no descriptor for it.
                    await Task.Delay(Pause, cancellationToken).ConfigureAwait(false);
                }
            }
        }

        public ValueTask UnbindAsync(CancellationToken cancellationToken = default)
        {
            socket.Dispose();
            return ValueTask.CompletedTask;
        }

        public ValueTask DisposeAsync()
        {
            socket.Dispose();
            connections.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
