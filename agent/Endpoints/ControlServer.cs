using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// Answers <c>status</c>, <c>incidents N</c> and <c>ping</c> on a Unix stream socket: one line in, one JSON document
/// out, then the connection is closed. Who may connect is decided by the file's mode (0660) and group. A client can
/// neither hang nor grow the agent: requests, clients and times are bounded.
/// </summary>
internal sealed class ControlServer : IAsyncDisposable
{
    private const int MaxClients = 16;
    private const UnixFileMode DirectoryMode =
        UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupExecute;
    private const UnixFileMode SocketMode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite;
    private const UnixFileMode LockMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>EWOULDBLOCK, with which the runtime reports a lock that somebody else holds.</summary>
    private const int WouldBlock = 11;

    private static readonly TimeSpan RequestTimeout = TimeSpan.FromSeconds(2);

    /// <summary>For the whole answer; a client that does not read is cut off then.</summary>
    private static readonly TimeSpan AnswerTimeout = TimeSpan.FromSeconds(10);

    private readonly string _socketPath;
    private readonly FileStream _heldLock;
    private readonly Socket _listening;
    private readonly Func<AgentSnapshot?> _snapshot;
    private readonly Func<int, IReadOnlyList<Incident>> _incidents;
    private readonly Func<CancellationToken, Task> _refresh;
    private readonly CancellationTokenSource _stopping = new();
    private readonly HashSet<Task> _clients = [];
    private readonly Task _accepting;

    private ControlServer(string path, FileStream agentLock, Socket listener, Func<AgentSnapshot?> snapshot, Func<int, IReadOnlyList<Incident>> incidents, Func<CancellationToken, Task> refresh)
    {
        _socketPath = path;
        _heldLock = agentLock;
        _listening = listener;
        _snapshot = snapshot;
        _incidents = incidents;
        _refresh = refresh;
        _accepting = Task.Run(AcceptAsync);
    }

    /// <summary>
    /// Makes the directory (0750) where it is missing and the socket in it, replaces the socket of a dead agent, and serves.
    /// </summary>
    /// <param name="runtimeDirectory">Where <c>control.sock</c> goes.</param>
    /// <param name="snapshot">The latest scan, or null before the first; called on other threads, must not block.</param>
    /// <param name="incidents">The last N incidents, oldest first; called on other threads.</param>
    /// <param name="refresh">Completes when the snapshot is fresh, or soon; null: it always is.</param>
    /// <exception cref="ControlException">Another agent serves this directory, or the socket cannot be made.</exception>
    public static ControlServer Start(string runtimeDirectory, Func<AgentSnapshot?> snapshot, Func<int, IReadOnlyList<Incident>> incidents, Func<CancellationToken, Task>? refresh = null)
    {
        var path = ControlSocket.PathIn(runtimeDirectory);
        FileStream? agentLock = null;
        Socket? listener = null;
        try
        {
            if (!Directory.Exists(runtimeDirectory))
            {
                // One that is there (made by the service manager, or by hand) keeps the mode that it was given.
                Directory.CreateDirectory(runtimeDirectory, DirectoryMode);
                ControlSocket.GiveToGroup(runtimeDirectory);
            }

            agentLock = TakeLock(runtimeDirectory);
            RefuseLiveSocket(path, runtimeDirectory);

            // Bound under another name and renamed when its mode is right: it is never open to others, not for a moment,
            // and whoever finds the name finds a listener behind it.
            var temporary = path + ".new";
            File.Delete(temporary);
            listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            listener.Bind(new UnixDomainSocketEndPoint(temporary));
            File.SetUnixFileMode(temporary, SocketMode);
            ControlSocket.GiveToGroup(temporary);
            listener.Listen(MaxClients);
            File.Move(temporary, path, overwrite: true);
            var server = new ControlServer(path, agentLock, listener, snapshot, incidents, refresh ?? (static _ => Task.CompletedTask));
            agentLock = null;
            listener = null;
            return server;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SocketException or ArgumentException)
        {
            throw new ControlException(ControlFailure.CannotServe, $"cannot make the control socket {path}: {e.Message}", e);
        }
        finally
        {
            listener?.Dispose();
            agentLock?.Dispose();
        }
    }

    /// <summary>Takes no more requests, cuts off the clients that are left, and removes the socket.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        _listening.Dispose();
        await _accepting;
        Task[] rest;
        lock (_clients)
        {
            rest = [.. _clients];
        }

        await Task.WhenAll(rest).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        try
        {
            // Still ours: the lock is held.
            File.Delete(_socketPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The next agent replaces it.
        }

        await _heldLock.DisposeAsync();
        _stopping.Dispose();
    }

    /// <summary>
    /// The kernel drops the lock when its holder dies, however it dies, so it tells a live agent from a dead one even
    /// where both start at the same moment.
    /// </summary>
    private static FileStream TakeLock(string runtimeDirectory)
    {
        var lockPath = Path.Combine(runtimeDirectory, "control.lock");
        try
        {
            return new FileStream(lockPath, new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.ReadWrite,
                Share = FileShare.None,
                UnixCreateMode = LockMode,
            });
        }
        catch (IOException e) when (e.HResult == WouldBlock)
        {
            throw AlreadyRunning(runtimeDirectory, e);
        }
    }

    private static void RefuseLiveSocket(string path, string runtimeDirectory)
    {
        using var attempt = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            attempt.Blocking = false;
            attempt.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.WouldBlock)
        {
            // Somebody listens and has a full queue.
        }
        catch (SocketException)
        {
            return;
        }

        throw AlreadyRunning(runtimeDirectory, null);
    }

    private static ControlException AlreadyRunning(string runtimeDirectory, Exception? inner) => new(
        ControlFailure.AlreadyRunning,
        $"another conn-sidecar is already running with the runtime directory {runtimeDirectory}; two agents must not act on the same connections",
        inner);

    private async Task AcceptAsync()
    {
        while (!_stopping.IsCancellationRequested)
        {
            Socket client;
            try
            {
                client = await _listening.AcceptAsync(_stopping.Token);
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
            catch (SocketException)
            {
                // Out of descriptors, for one: without a pause this would spin until some are free again.
                await Task.Delay(TimeSpan.FromMilliseconds(200));
                continue;
            }

            lock (_clients)
            {
                if (_clients.Count >= MaxClients)
                {
                    client.Dispose();
                    continue;
                }

                var serving = ServeAsync(client);
                _clients.Add(serving);
                _ = serving.ContinueWith(Forget, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            }
        }
    }

    private void Forget(Task done)
    {
        lock (_clients)
        {
            _clients.Remove(done);
        }
    }

    private async Task ServeAsync(Socket client)
    {
        // Off the accepting thread before anything else: what follows may complete synchronously.
        await Task.Yield();
        await using var stream = new NetworkStream(client, ownsSocket: true);
        try
        {
            string? request;
            using (var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token))
            {
                deadline.CancelAfter(RequestTimeout);
                request = await ReadRequestAsync(stream, deadline.Token);
            }

            using (var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token))
            {
                deadline.CancelAfter(AnswerTimeout);
                await AnswerAsync(stream, request, deadline.Token);
            }
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or SocketException)
        {
            // The client went away or was too slow: its connection is closed, and the agent's work goes on.
        }
    }

    /// <summary>The line without its end, or null where it is too long or never ended.</summary>
    private static async Task<string?> ReadRequestAsync(NetworkStream stream, CancellationToken cancel)
    {
        var buffer = new byte[ControlSocket.MaxRequestBytes];
        var length = 0;
        while (length < buffer.Length)
        {
            var read = await stream.ReadAsync(buffer.AsMemory(length), cancel);
            if (read == 0)
            {
                return null;
            }

            var end = buffer.AsSpan(length, read).IndexOf((byte)'\n');
            if (end >= 0)
            {
                return Encoding.Latin1.GetString(buffer, 0, length + end).TrimEnd('\r');
            }

            length += read;
        }

        return null;
    }

    private Task AnswerAsync(NetworkStream stream, string? request, CancellationToken cancel)
    {
        var words = request?.Split(' ', StringSplitOptions.RemoveEmptyEntries) ?? [];
        return words switch
        {
            ["ping"] => WriteAsync(stream, new PingDocument(ProductVersion.Text, Environment.ProcessId), ControlJson.Default.PingDocument, cancel),
            ["status"] => StatusAsync(stream, cancel),
            ["incidents", var count] when int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out var last) && last is >= 1 and <= ControlSocket.MaxIncidents
                => IncidentsAsync(stream, last, cancel),
            ["incidents", ..] => RefuseAsync(stream, $"expected \"incidents N\" with N of 1 to {ControlSocket.MaxIncidents}", cancel),
            _ when request is null => RefuseAsync(stream, $"expected one line of at most {ControlSocket.MaxRequestBytes} bytes", cancel),
            _ => RefuseAsync(stream, "expected one of: ping, status, incidents N", cancel),
        };
    }

    private async Task StatusAsync(NetworkStream stream, CancellationToken cancel)
    {
        await _refresh(cancel);
        await (_snapshot() is { } latest
            ? WriteAsync(stream, StatusDocument.From(latest, running: true), ControlJson.Default.StatusDocument, cancel)
            : RefuseAsync(stream, ControlSocket.NotYet, cancel));
    }

    private Task IncidentsAsync(NetworkStream stream, int last, CancellationToken cancel)
    {
        try
        {
            return WriteAsync(stream, _incidents(last), ControlJson.Default.IReadOnlyListIncident, cancel);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return RefuseAsync(stream, $"the incidents cannot be read: {e.Message}", cancel);
        }
    }

    private static Task RefuseAsync(NetworkStream stream, string error, CancellationToken cancel) =>
        WriteAsync(stream, new ErrorDocument(error), ControlJson.Default.ErrorDocument, cancel);

    private static async Task WriteAsync<T>(NetworkStream stream, T document, JsonTypeInfo<T> type, CancellationToken cancel)
    {
        await JsonSerializer.SerializeAsync(stream, document, type, cancel);
        await stream.WriteAsync("\n"u8.ToArray(), cancel);
    }
}
