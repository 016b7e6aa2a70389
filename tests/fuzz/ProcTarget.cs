using System.Text;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>Lines of /proc: command names of any bytes, numbers of any size, lines cut anywhere.</summary>
internal sealed class ProcTarget : FuzzTarget
{
    private static readonly string[] Names = [") S 1 1 1", "a b", "\n", "(", ")", "((", "))", ") Z 0", "\0", "Uid:\t0", "é"];
    private static readonly string[] Words = [" ", ")", "(", "\n", ":", "/", ".service", ".scope", "name=systemd", "18446744073709551616", "-1", "\nUid:\t0"];

    internal override void Try(Dice dice)
    {
        switch (dice.Choose(0, 2))
        {
            case 0:
                WholeStat(dice);
                break;
            case 1:
                DamagedStat(dice);
                break;
            default:
                Unit(dice);
                break;
        }
    }

    /// <summary>Whatever a process calls itself, its numbers are the kernel's.</summary>
    private static void WholeStat(Dice dice)
    {
        var (pid, parent, start) = (dice.Choose(1, 4_000_000), dice.Choose(0, 4_000_000), dice.Next() >> dice.Choose(0, 63));
        var state = dice.Pick('R', 'S', 'D', 'Z', 'T', 'X', 'I');
        var kernel = dice.Chance(0.2);
        var line = Stat(pid, Name(dice), state, parent, kernel ? 0x200040UL : 0x400100UL, start, dice.Choose(0, 1000));
        Hold(ProcessReader.TryParseStat(line, out var stat), "a whole line was refused");
        Hold(stat.Identity == new ProcessIdentity(pid, start) && stat.State == state && stat.ParentPid == parent && stat.IsKernelThread == kernel, "a name was taken for numbers");
        Hold(ProcessUsage.TryParse(line, 4096, out var usage) && usage.Identity == stat.Identity, "what it has used was refused");
    }

    private static void DamagedStat(Dice dice)
    {
        var line = dice.Damage(Stat((int)dice.Edge(), Name(dice), 'S', 1, dice.Edge(), dice.Edge(), (long)dice.Edge()), Words);
        _ = ProcessReader.TryParseStat(line, out _);
        _ = ProcessUsage.TryParse(line, 4096, out _);
    }

    private static void Unit(Dice dice)
    {
        var text = Encoding.UTF8.GetString(dice.Damage(Encoding.UTF8.GetBytes(
            dice.Pick("0::/system.slice/uwsgi.service/worker\n", "12:pids:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", "0::/user.slice/session-1.scope\n")), Words));
        if (ProcessReader.ParseUnit(text) is { } unit)
        {
            Hold(!unit.Contains('/') && (unit.EndsWith(".service", StringComparison.Ordinal) || unit.EndsWith(".scope", StringComparison.Ordinal)), $"no unit: {unit}");
        }
    }

    /// <summary>comm: at most 15 bytes, any but NUL; here NUL too.</summary>
    internal static byte[] Name(Dice dice)
    {
        var name = dice.Chance(0.5) ? Encoding.UTF8.GetBytes(dice.Pick<string>(Names)) : dice.Bytes(dice.Choose(0, 15));
        return name.Length > 15 ? name[..15] : name;
    }

    internal static byte[] Stat(int pid, byte[] name, char state, int parent, ulong flags, ulong start, long used) =>
    [
        .. Encoding.ASCII.GetBytes($"{pid} ("),
        .. name,
        .. Encoding.ASCII.GetBytes($") {state} {parent} 1 1 0 -1 {flags} 0 0 0 0 {used} {used} 0 0 20 0 1 0 {start} 1000000 {used} 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"),
    ];
}
