using System.Runtime.InteropServices;

namespace Sidecar.Lab;

/// <summary>Removes what this process made when it ends: normally, by Ctrl-C, SIGTERM or SIGHUP.</summary>
internal static class LabCleanup
{
    private static readonly Lock Gate = new();
    private static readonly HashSet<IDisposable> Kept = [];
    private static readonly List<PosixSignalRegistration> Registrations = [];

    static LabCleanup()
    {
        AppDomain.CurrentDomain.ProcessExit += (_, _) => RemoveAll();
        foreach (var signal in new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP })
        {
            Registrations.Add(PosixSignalRegistration.Create(signal, context =>
            {
                context.Cancel = true;
                RemoveAll();
                Environment.Exit(signal == PosixSignal.SIGINT ? 130 : 143);
            }));
        }
    }

    /// <summary>Registers something that must not outlive the process.</summary>
    public static T Keep<T>(T thing)
        where T : IDisposable
    {
        lock (Gate)
        {
            Kept.Add(thing);
        }

        return thing;
    }

    /// <summary>Disposes of something that was registered, once.</summary>
    public static void Remove(IDisposable thing)
    {
        lock (Gate)
        {
            if (!Kept.Remove(thing))
            {
                return;
            }
        }

        thing.Dispose();
    }

    private static void RemoveAll()
    {
        IDisposable[] all;
        lock (Gate)
        {
            all = [.. Kept];
        }

        Parallel.ForEach(all, Remove);
    }
}
