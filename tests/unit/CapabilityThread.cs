using System.ComponentModel;
using System.Runtime.InteropServices;
using Sidecar.Probes.Processes;

namespace Sidecar.UnitTests;

/// <summary>Runs something on a thread that lacks capabilities (capset(2) changes the calling thread alone); the thread ends afterwards.</summary>
internal static class CapabilityThread
{
    private const uint Version3 = 0x20080522;

    internal static T Without<T>(Func<T> work, params Capability[] dropped)
    {
        T result = default!;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                Drop(dropped);
                result = work();
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? result : throw new InvalidOperationException("the work without capabilities has failed", failure);
    }

    private static void Drop(Capability[] dropped)
    {
        var header = new uint[] { Version3, 0 };
        var data = new uint[6]; // effective, permitted, inheritable of the low 32 capabilities, then of the high ones
        if (CapGet(header, data) != 0)
        {
            throw new Win32Exception();
        }

        foreach (var capability in dropped)
        {
            data[0] &= ~(1u << (int)capability);

            // CAP_DAC_OVERRIDE (1) permits all that CAP_DAC_READ_SEARCH does.
            data[0] &= capability == Capability.DacReadSearch ? ~(1u << 1) : ~0u;
        }

        header = [Version3, 0];
        if (CapSet(header, data) != 0)
        {
            throw new Win32Exception();
        }
    }

    [DllImport("libc", EntryPoint = "capget", SetLastError = true)]
    private static extern int CapGet([In, Out] uint[] header, [In, Out] uint[] data);

    [DllImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static extern int CapSet([In] uint[] header, [In] uint[] data);
}
