using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;

using Sidecar.Probes.Values;

namespace Sidecar.Probes.Rehearsals;

/// <summary>What came of doing to a child of our own what may have to be done to a worker. Null: it could not be tried.</summary>
public sealed record ChildRehearsalResult
{
    /// <summary>Why the rehearsal itself failed; null where it did not.</summary>
    public string? Problem { get; init; }

    /// <summary>The child had another user's id; otherwise it only shut itself off, as another user's process is.</summary>
    public bool IsOtherUser { get; init; }

    /// <summary>Its descriptors could be listed and its socket was among them.</summary>
    public bool? Descriptors { get; init; }

    /// <summary>Setting keepalive options on its socket, and reading them back.</summary>
    public TouchResult? Keepalive { get; init; }

    /// <summary>Signal 0.</summary>
    public HandleFailure? Signal { get; init; }

    /// <summary>SIGTERM, and whether it ended.</summary>
    public bool? Terminated { get; init; }

    /// <summary>A socket was made in the child's own network namespace; null where it could not have one.</summary>
    public bool? Namespace { get; init; }

    /// <summary>Why not, where <see cref="Namespace"/> is not true.</summary>
    public string? NamespaceDetail { get; init; }
}

/// <summary>
/// Rehearses on a process of our own: the child opens a connection to itself and becomes like another user's process;
/// the parent finds its descriptors, arms its socket, enters its network namespace and ends it.
/// </summary>
public static class ChildRehearsal
{
    private const uint Nobody = 65534;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>The child's part: says what it is, and lives until its standard input ends.</summary>
    public static int RunChild()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        using var accepted = listener.Accept();
        Libc.TryGetOption(client.SafeHandle, Libc.SOL_SOCKET, Libc.SO_COOKIE, out ulong cookie);
        Console.Out.WriteLine("rehearsal");

        // /proc/PID/ns/net shows the namespace of the thread that began the process, which is this one.
        var unshared = Libc.Unshare(Libc.CLONE_NEWNET) == 0;

        // Another user's process is closed to us by its uid. Where the uid cannot be changed, a process that is not
        // dumpable is closed in the same way (ptrace(2), access mode checks).
        var other = Libc.SetResUid(Nobody, Nobody, Nobody) == 0;
        _ = Libc.Prctl(Libc.PR_SET_DUMPABLE, other ? 1u : 0u, 0, 0, 0);
        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(int)client.Handle} {cookie} {(other ? 1 : 0)} {(unshared ? 1 : 0)}"));
        Console.Out.Flush();
        Console.In.ReadToEnd();
        return 0;
    }

    /// <summary>The parent's part; never throws.</summary>
    /// <param name="program">Program that runs <see cref="RunChild"/>.</param>
    /// <param name="arguments">Its arguments.</param>
    public static ChildRehearsalResult Run(string program, IReadOnlyList<string> arguments)
    {
        try
        {
            using var child = Process.Start(new ProcessStartInfo(program, arguments)
            {
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }) ?? throw new InvalidOperationException("the child did not start");
            try
            {
                return Rehearse(child);
            }
            finally
            {
                child.StandardInput.Close();
                if (!child.WaitForExit(Patience))
                {
                    child.Kill();
                }
            }
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException or IOException or KernelException or TimeoutException)
        {
            return new ChildRehearsalResult { Problem = e.Message };
        }
    }

    private static ChildRehearsalResult Rehearse(Process child)
    {
        var words = ReadWords(child);
        var descriptor = int.Parse(words[0], CultureInfo.InvariantCulture);
        var cookie = new SocketCookie(ulong.Parse(words[1], CultureInfo.InvariantCulture));
        var processes = new ProcessReader();
        var listed = false;
        var readable = processes.TryVisitSockets(child.Id, (fd, _) => listed |= fd == descriptor);
        var result = new ChildRehearsalResult { IsOtherUser = words[2] == "1", Descriptors = readable && listed };
        if (!processes.TryReadStat(child.Id, out var stat))
        {
            return result with { Problem = "the child ended by itself" };
        }

        result = words[3] == "1" ? Enter(result, processes, child.Id) : result with { NamespaceDetail = "no namespace of its own can be made to try it (CAP_SYS_ADMIN)" };
        using var handle = ProcessHandle.TryOpen(stat.Identity, processes, out var failure);
        if (handle is null)
        {
            return result with { Keepalive = failure == HandleFailure.NotSupported ? TouchResult.NotSupported : TouchResult.Failed, Signal = failure };
        }

        var wanted = default(KeepaliveOptions);
        var touched = ForeignSocket.TryChange(
            handle, descriptor, cookie, present => wanted = present with { Enabled = true, Idle = TimeSpan.FromSeconds(1234), Count = 17 }, out _, out _);
        if (touched == TouchResult.Done
            && (ForeignSocket.TryRead(handle, descriptor, cookie, out var now) != TouchResult.Done || now != wanted))
        {
            touched = TouchResult.Failed;
        }

        var signal = handle.Rehearse();
        var terminated = handle.Terminate() == HandleFailure.None && child.WaitForExit(Patience);
        return result with { Keepalive = touched, Signal = signal, Terminated = terminated };
    }

    private static string[] ReadWords(Process child)
    {
        var answer = Task.Run(() =>
        {
            child.StandardOutput.ReadLine();
            return child.StandardOutput.ReadLine();
        });
        return answer.Wait(Patience) && answer.Result?.Split(' ') is { Length: 4 } words
            ? words
            : throw new InvalidOperationException("the child did not say what was expected");
    }

    private static ChildRehearsalResult Enter(ChildRehearsalResult result, ProcessReader processes, int pid)
    {
        try
        {
            using var network = NetworkNamespace.Open(processes.ReadNetworkNamespace(pid), processes.NetworkNamespacePath(pid));
            using var socket = network.CreateTcpSocket(AddressFamily.InterNetwork);
            return result with { Namespace = true };
        }
        catch (Exception e) when (e is KernelException or SocketException)
        {
            return result with { Namespace = false, NamespaceDetail = e.Message };
        }
    }
}
