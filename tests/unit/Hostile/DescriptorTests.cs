using System.Globalization;
using Shouldly;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>Processes with more descriptors than the loop has time for.</summary>
public sealed class DescriptorTests
{
    /// <summary>
    /// As many descriptors as take seconds to read, in many processes, since one may not have more than its limit. Each has a socket
    /// among the first and one after the last, and prints their inodes.
    /// </summary>
    private const string Hoard = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (16_500, 16_500))
        null = os.open('/dev/null', os.O_RDONLY)
        for child in range(24):
            read, write = os.pipe()
            if os.fork() == 0:
                first = socket.socket()
                for i in range(16_000): os.dup(null)
                last = socket.socket()
                os.write(write, f'{os.getpid()} {os.fstat(first.fileno()).st_ino} {os.fstat(last.fileno()).st_ino}'.encode())
                time.sleep(600)
            print(os.read(read, 100).decode(), flush=True)
            os.close(read); os.close(write)
        """;

    private const string TwoSockets = "sockets = [socket.socket() for i in range(2)]\nprint(os.getpid(), *[os.fstat(s.fileno()).st_ino for s in sockets])";

    private readonly ProcessReader _processes = new();

    [Fact]
    public void A_hoard_of_descriptors_keeps_no_worker_from_being_found_and_is_searched_beside_the_loop()
    {
        using var hoard = new Stranger("", Hoard);
        using var worker = new Stranger("", TwoSockets, uid: 65533);
        var (theirs, ours) = (Sockets(hoard)[^1], Sockets(worker)[0]);
        var owners = new OwnerTable();
        using var finder = new OwnerFinder(_processes, owners, []);
        var now = TimeSpan.FromSeconds(100);

        finder.Find([theirs.Last, ours.First], now);

        owners.IsKnown(theirs.Last).ShouldBeFalse("the search takes seconds, and has returned");

        // The worker is found in the first slices, by this call or in the background.
        SpinWait.SpinUntil(() => Finds(ours.First), TimeSpan.FromSeconds(60)).ShouldBeTrue();
        owners.Find(ours.First).First!.Identity.Pid.ShouldBe(ours.Pid);
        owners.IsKnown(theirs.Last).ShouldBeFalse();
        SpinWait.SpinUntil(() => finder.Problem is not null, TimeSpan.FromSeconds(60)).ShouldBeTrue();
        finder.Problem!.ShouldContain("holds more than");

        // It is not the worker who waits meanwhile, but it is found too in the end.
        SpinWait.SpinUntil(() => Finds(theirs.Last), TimeSpan.FromSeconds(300)).ShouldBeTrue();
        owners.Find(theirs.Last).First!.Identity.Pid.ShouldBe(theirs.Pid);

        bool Finds(uint inode)
        {
            finder.Find([theirs.Last, ours.First], now += TimeSpan.FromMilliseconds(20));
            return owners.IsKnown(inode);
        }
    }

    [Fact]
    public void Hoards_that_hold_watched_sockets_themselves_do_not_hold_up_the_search_among_holders()
    {
        using var hoard = new Stranger("", Hoard);
        using var worker = new Stranger("", TwoSockets, uid: 65533);
        var theirs = Sockets(hoard);
        var ours = Sockets(worker)[0];
        var owners = new OwnerTable();
        using var finder = new OwnerFinder(_processes, owners, []);
        var now = TimeSpan.FromSeconds(100);
        SpinWait.SpinUntil(() =>
        {
            finder.Find([.. theirs.Select(socket => socket.First), ours.First], now += TimeSpan.FromSeconds(1));
            return owners.IsKnown(ours.First) && theirs.TrueForAll(socket => owners.IsKnown(socket.First));
        }, TimeSpan.FromSeconds(60)).ShouldBeTrue();
        owners.Processes.Count.ShouldBe(theirs.Count + 1);

        // Too early for a walk over all. On a busy machine the time for a search may pass before anything is read.
        SpinWait.SpinUntil(() =>
        {
            finder.Find([.. theirs.Select(socket => socket.Last), ours.Last], now + TimeSpan.FromMilliseconds(100));
            return owners.IsKnown(ours.Last);
        }, TimeSpan.FromSeconds(30)).ShouldBeTrue();
        owners.Find(ours.Last).First!.Identity.Pid.ShouldBe(ours.Pid);
        theirs.Count(socket => owners.IsKnown(socket.Last)).ShouldBeLessThan(theirs.Count);
    }

    [Fact]
    public void A_walk_in_slices_sees_every_descriptor_once()
    {
        using var many = new Stranger("", "null = os.open('/dev/null', os.O_RDONLY)\nfor i in range(600): os.dup(null)\nsockets = [socket.socket() for i in range(300)]\nfor s in sockets: print(os.fstat(s.fileno()).st_ino)");
        var seen = new List<uint>();
        long cursor = 0;
        int read, slices = 0, sum = 0;
        do
        {
            read = _processes.VisitSockets(many.Pid, ref cursor, 100, (_, inode) => seen.Add(inode));
            sum += read;
            slices++;
        }
        while (read == 100);
        read.ShouldBeInRange(0, 99);
        slices.ShouldBeInRange(10, 11);
        sum.ShouldBe(Directory.GetFiles($"/proc/{many.Pid}/fd").Length + 2, "and the directory's own two entries");
        seen.ShouldBe(many.Lines.Select(line => uint.Parse(line, CultureInfo.InvariantCulture)), ignoreOrder: true);
        _processes.VisitSockets(int.MaxValue, ref cursor, 100, (_, _) => { }).ShouldBe(-1);
    }

    [Fact]
    public void Users_are_searched_in_turn_and_of_each_those_that_hold_watched_sockets_first()
    {
        using var proc = new TemporaryDirectory();
        foreach (var (pid, uid) in new[] { (10, 1u), (11, 1u), (12, 1u), (13, 1u), (20, 2u), (21, 2u), (30, 3u) })
        {
            proc.Write($"{pid}/status", $"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        }

        var order = new ProcessOrder(new ProcessReader(proc.Path), workers: null, reading: TimeSpan.FromMinutes(1));
        order.Of([10, 11, 12, 13, 20, 21, 30], new HashSet<int> { 12, 21 }).ShouldBe([12, 21, 30, 10, 20, 11, 13]);
        order.Of([10, 99, 30], new HashSet<int>()).ShouldBe([10, 30, 99], "what is not known comes last");

        // Without the time to read anything they are searched all the same.
        new ProcessOrder(new ProcessReader(proc.Path), workers: null, reading: TimeSpan.Zero).Of([10, 20, 30], new HashSet<int> { 30 }).ShouldBe([30, 10, 20]);
        order.All([30]).ShouldBe([30, 10, 20, 11, 21, 12, 13], ignoreOrder: true);
    }

    private static List<(int Pid, uint First, uint Last)> Sockets(Stranger stranger) => [.. stranger.Lines.Select(line => line.Split(' '))
        .Select(numbers => (int.Parse(numbers[0], CultureInfo.InvariantCulture), uint.Parse(numbers[1], CultureInfo.InvariantCulture), uint.Parse(numbers[2], CultureInfo.InvariantCulture)))];
}
