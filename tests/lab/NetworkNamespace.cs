using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Sidecar.Lab;

/// <summary>A named network namespace: one host of the lab.</summary>
public sealed partial class NetworkNamespace(string name)
{
    public string Name { get; } = name;

    /// <summary>The file by which the kernel knows it.</summary>
    public string Path => PathOf(Name);

    public static string PathOf(string name) => $"/run/netns/{name}";

    /// <summary>Runs a command inside and returns its output.</summary>
    /// <exception cref="CommandFailedException">It failed.</exception>
    public Task<string> RunAsync(IEnumerable<string> commandLine, string? input = null) =>
        Command.RunAsync("nsenter", [$"--net={Path}", "--", .. commandLine], input);

    /// <summary>Runs a command inside, whatever its exit code.</summary>
    public Task<CommandResult> TryRunAsync(IEnumerable<string> commandLine) =>
        Command.TryRunAsync("nsenter", [$"--net={Path}", "--", .. commandLine]);

    /// <summary>Runs several <c>ip</c> commands inside in one go.</summary>
    public Task IpAsync(params IEnumerable<string> commands) => RunAsync(["ip", "-batch", "-"], string.Join('\n', commands) + "\n");

    /// <summary>Sets sysctls inside.</summary>
    public Task SysctlAsync(params IEnumerable<string> settings) => RunAsync(["sysctl", "-q", "-w", .. settings]);

    /// <summary>
    /// Does something inside and returns its result: a socket made there belongs to this namespace for good.
    /// </summary>
    /// <exception cref="SocketException">The namespace cannot be entered.</exception>
    public T Inside<T>(Func<T> make)
    {
        // setns moves one thread, so it is a thread of its own that ends afterwards.
        T? made = default;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                using var handle = File.OpenHandle(Path);
                const int newNetwork = 0x40000000;
                if (SetNs(handle, newNetwork) != 0)
                {
                    throw new SocketException(Marshal.GetLastPInvokeError());
                }

                made = make();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? made! : throw failure;
    }

    /// <summary>An HTTP client whose connections are made inside this namespace.</summary>
    public HttpClient HttpClient() => new(new SocketsHttpHandler
    {
        PooledConnectionLifetime = TimeSpan.Zero,
        ConnectCallback = async (context, cancellation) =>
        {
            var socket = Inside(() => new Socket(SocketType.Stream, ProtocolType.Tcp));
            try
            {
                await socket.ConnectAsync(context.DnsEndPoint, cancellation);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        },
    });

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNs(SafeHandle descriptor, int type);
}
