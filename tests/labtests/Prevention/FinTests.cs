using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;

namespace Sidecar.LabTests.Prevention;

/// <summary>While a duplicate of a socket is open its owner's close() sends no FIN.</summary>
// It keeps a core busy all the time: after the others, not beside them.
[Collection("alone")]
public sealed class FinTests
{
    private const int Closes = 10_000;

    [Fact]
    public async Task The_duplicate_never_delays_a_FIN_when_the_owner_closes_while_it_is_being_armed()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(16);
        var script = Path.Combine(AppContext.BaseDirectory, "app", "closer.py");
        using var child = ChildProcess.Start(new ChildOptions
        {
            Name = "closer.py",
            CommandLine = ["/usr/bin/python3", script, $"{((IPEndPoint)listener.LocalEndPoint!).Port}", $"{Closes}"],
            Directory = AppContext.BaseDirectory,
        });
        var processes = new ProcessReader();
        processes.TryReadStat(child.Pid, out var stat).ShouldBeTrue();
        using var owner = ProcessHandle.TryOpen(stat.Identity, processes, out _).ShouldNotBeNull();

        using var stop = new CancellationTokenSource();
        Target? target = null;
        long armed = 0;
        var arming = Task.Factory.StartNew(
            () =>
            {
                while (!stop.IsCancellationRequested)
                {
                    if (Volatile.Read(ref target) is { } t && ForeignSocket.TryChange(
                        owner, t.Descriptor, t.Cookie, present => present with { Enabled = true, Idle = TimeSpan.FromSeconds(5) }, out _, out _, force: true) == TouchResult.Done)
                    {
                        Interlocked.Increment(ref armed);
                    }
                }
            },
            CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

        var longest = TimeSpan.Zero;
        var buffer = new byte[64];
        for (var i = 0; i < Closes; i++)
        {
            using var accepted = await listener.AcceptAsync().WaitAsync(Wait.Seconds(10));

            // A FIN that does not come (the duplicate was kept) is a receive that times out.
            accepted.ReceiveTimeout = 2000;
            Read(accepted, buffer.AsSpan(0, 16));
            Volatile.Write(ref target, new Target((int)BinaryPrimitives.ReadUInt64LittleEndian(buffer), new SocketCookie(BinaryPrimitives.ReadUInt64LittleEndian(buffer.AsSpan(8)))));
            Read(accepted, buffer.AsSpan(0, 8));
            accepted.Receive(buffer).ShouldBe(0);
            var closed = TimeSpan.FromTicks((long)BinaryPrimitives.ReadUInt64LittleEndian(buffer) / 100);
            var now = TimeSpan.FromSeconds((double)Stopwatch.GetTimestamp() / Stopwatch.Frequency);
            longest = now - closed > longest ? now - closed : longest;
        }

        await stop.CancelAsync();
        await arming.WaitAsync(Wait.Seconds(10));
        Interlocked.Read(ref armed).ShouldBeGreaterThan(Closes);
        longest.ShouldBeLessThan(Wait.Seconds(1));
    }

    private static void Read(Socket socket, Span<byte> buffer)
    {
        for (var got = 0; got < buffer.Length;)
        {
            var n = socket.Receive(buffer[got..]);
            n.ShouldBeGreaterThan(0);
            got += n;
        }
    }

    private sealed record Target(int Descriptor, SocketCookie Cookie);
}
