using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Sidecar.Agent.Core.Remedies;

namespace Sidecar.Agent.Endpoints;

/// <summary>Asks a running agent over its control socket.</summary>
/// <param name="runtimeDirectory">Where the agent's <c>control.sock</c> is.</param>
internal sealed class ControlClient(string runtimeDirectory)
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(15);

    /// <summary>How long an agent that has just started is given for its first scan.</summary>
    private static readonly TimeSpan FirstScan = TimeSpan.FromSeconds(5);

    /// <summary>Whether an agent lives there, and which.</summary>
    /// <exception cref="ControlException">No agent, no permission, no answer.</exception>
    public PingDocument Ping() => Ask("ping", ControlJson.Default.PingDocument);

    /// <summary>What the agent sees; its <c>Connections</c> are a list. Waits for the first scan of an agent that has just started.</summary>
    /// <exception cref="ControlException">No agent, no permission, no answer.</exception>
    public StatusDocument Status()
    {
        var started = Environment.TickCount64;
        while (true)
        {
            try
            {
                return Ask("status", ControlJson.Default.StatusDocument);
            }
            catch (ControlException e) when (string.Equals(e.Message, ControlSocket.NotYet, StringComparison.Ordinal)
                && Environment.TickCount64 - started < FirstScan.TotalMilliseconds)
            {
                Thread.Sleep(100);
            }
        }
    }

    /// <summary>The newest incidents, oldest first.</summary>
    /// <param name="last">1 to <see cref="ControlSocket.MaxIncidents"/>.</param>
    /// <exception cref="ControlException">No agent, no permission, no answer.</exception>
    public IReadOnlyList<Incident> Incidents(int last) =>
        Ask(string.Create(CultureInfo.InvariantCulture, $"incidents {last}"), ControlJson.Default.IReadOnlyListIncident);

    private T Ask<T>(string request, JsonTypeInfo<T> type)
    {
        using var deadline = new CancellationTokenSource(Timeout);
        return AskAsync(request, type, deadline.Token).GetAwaiter().GetResult();
    }

    private async Task<T> AskAsync<T>(string request, JsonTypeInfo<T> type, CancellationToken cancel)
    {
        using var socket = await ConnectAsync(cancel);
        await using var stream = new NetworkStream(socket, ownsSocket: false);
        try
        {
            await stream.WriteAsync(Encoding.ASCII.GetBytes(request + "\n"), cancel);
            using var answer = await JsonDocument.ParseAsync(stream, default, cancel);
            if (answer.RootElement.ValueKind == JsonValueKind.Object && answer.RootElement.TryGetProperty("error", out var error))
            {
                throw new ControlException(ControlFailure.NoAnswer, error.GetString() ?? "the agent answered with an error");
            }

            return answer.Deserialize(type) ?? throw new JsonException("null");
        }
        catch (Exception e) when (e is IOException or JsonException or OperationCanceledException or SocketException)
        {
            throw new ControlException(ControlFailure.NoAnswer, $"the agent at {ControlSocket.PathIn(runtimeDirectory)} did not answer as expected: {e.Message}", e);
        }
    }

    private async Task<Socket> ConnectAsync(CancellationToken cancel)
    {
        var path = ControlSocket.PathIn(runtimeDirectory);
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancel);
            return socket;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ArgumentException)
        {
            socket.Dispose();
            throw e switch
            {
                SocketException { SocketErrorCode: SocketError.AccessDenied } => new ControlException(ControlFailure.NotPermitted,
                    $"not permitted to ask the agent at {path}: use sudo, or join the group {ControlSocket.GroupName}", e),
                OperationCanceledException => new ControlException(ControlFailure.NoAnswer, $"the agent at {path} takes no connections", e),
                _ => new ControlException(ControlFailure.NotRunning, $"no agent is running (nothing listens at {path})", e),
            };
        }
    }
}
