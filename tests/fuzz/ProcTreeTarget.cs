using System.Text;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>
/// A /proc whose processes come, go, are somebody else under the same pid and lie about themselves, all while it is
/// being read: another thread does to the tree what the kernel might.
/// </summary>
internal sealed class ProcTreeTarget : FuzzTarget
{
    private const int Pids = 6;

    private readonly string _root = Scratch.Directory();
    private readonly ProcessReader _reader;
    private readonly Thread _kernel;
    private readonly Lock _gate = new();
    private volatile bool _stop;
    private Dice _dice = new(0);

    internal ProcTreeTarget()
    {
        _reader = new ProcessReader(_root);
        _kernel = new Thread(Change) { IsBackground = true };
        _kernel.Start();
    }

    internal override void Try(Dice dice)
    {
        lock (_gate)
        {
            _dice = new Dice(dice.Next());
        }

        var owners = new OwnerTable();
        var finder = new OwnerFinder(_reader, owners, [new WorkersSection { Name = "w", Unit = "uwsgi.service", Terminate = true }]);
        for (var scans = 0; scans < 3; scans++)
        {
            finder.Find([1, 2, 3, 4], TimeSpan.FromSeconds(scans * 100));
            foreach (var inode in (uint[])[1, 2, 3, 4])
            {
                var ownership = owners.Find(inode);
                Hold(ownership.First is null ? ownership.Count == 0 : ownership.Count >= 1, "owners that are none are counted");
                Hold(ownership.First is null || ownership.First.Identity.Pid is > 0 and <= Pids, "an owner that never was");
                if (ownership.First is { } owner)
                {
                    _reader.HoldsSocket(owner.Identity.Pid, ownership.Descriptor, inode);
                    _reader.IsAlive(owner.Identity);
                }
            }

            finder.Prune();
        }

        for (var pid = 0; pid <= Pids + 1; pid++)
        {
            _reader.ReadUid(pid);
            _reader.ReadUnit(pid);
            _reader.ReadExecutable(pid);
            _reader.ReadContextSwitches(pid);
            _reader.ReadNetworkNamespace(pid);
            _reader.TryReadUsage(new ProcessIdentity(pid, 1), out _);
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _stop = true;
        _kernel.Join();
        Directory.Delete(_root, recursive: true);
    }

    private void Change()
    {
        while (!_stop)
        {
            lock (_gate)
            {
                try
                {
                    ChangeOne(_dice);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    // It is there already, or not any more.
                }
            }
        }
    }

    private void ChangeOne(Dice dice)
    {
        var pid = Path.Combine(_root, dice.Choose(1, Pids).ToString(System.Globalization.CultureInfo.InvariantCulture));
        if (dice.Chance(0.2))
        {
            Directory.Delete(pid, recursive: true);
            return;
        }

        if (dice.Chance(0.02))
        {
            File.WriteAllBytes(pid, dice.Bytes(10)); // a number that is no directory
            return;
        }

        Directory.CreateDirectory(Path.Combine(pid, "fd"));
        Directory.CreateDirectory(Path.Combine(pid, "ns"));
        Directory.CreateDirectory(Path.Combine(pid, "task", "1"));
        var number = int.Parse(Path.GetFileName(pid), System.Globalization.CultureInfo.InvariantCulture);
        File.WriteAllBytes(Path.Combine(pid, "stat"), Maybe(dice, ProcTarget.Stat(number, ProcTarget.Name(dice), dice.Pick('S', 'Z'), 1, 0, dice.Next() % 3, 1)));
        File.WriteAllBytes(Path.Combine(pid, "status"), Maybe(dice, Encoding.ASCII.GetBytes("Name:\tx\nUid:\t33\t33\t33\t33\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n")));
        File.WriteAllBytes(Path.Combine(pid, "task", "1", "status"), Maybe(dice, Encoding.ASCII.GetBytes("\nvoluntary_ctxt_switches:\t9223372036854775807\nnonvoluntary_ctxt_switches:\t6\n")));
        File.WriteAllBytes(Path.Combine(pid, "cgroup"), Maybe(dice, Encoding.ASCII.GetBytes("0::/system.slice/uwsgi.service\n")));
        Link(Path.Combine(pid, "fd", dice.Pick("3", "4", "2147483648", "x")), dice.Pick<string>($"socket:[{dice.Choose(1, 4)}]", "socket:[", "socket:[]", "socket:[99999999999999999999]", "/dev/null", "pipe:[1]"));
        Link(Path.Combine(pid, "exe"), dice.Pick<string>("/usr/bin/uwsgi", "/x (deleted)", " (deleted)", new string('a', 4000)));
        Link(Path.Combine(pid, "ns", "net"), dice.Pick<string>("net:[4026531840]", "net:[", "mnt:[1]", "net:[-1]"));
    }

    private static byte[] Maybe(Dice dice, byte[] content) => dice.Chance(0.3) ? dice.Damage(content) : content;

    private static void Link(string path, string target)
    {
        File.Delete(path);
        File.CreateSymbolicLink(path, target);
    }
}
