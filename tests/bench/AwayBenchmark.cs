using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>
/// <c>away</c>: the router is away and comes back without its table, or with it. The time is taken by the clients
/// themselves, from when the path is up to the end of their call.
/// </summary>
internal static class AwayBenchmark
{
    private const int Labs = 4;
    private const int TrialsPerLab = 3;
    private const int Clients = 2;

    /// <summary>What is not freed by then counts as that.</summary>
    private static readonly TimeSpan GiveUp = TimeSpan.FromSeconds(600);

    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(6);
    private static readonly TimeSpan BusyEvery = TimeSpan.FromMilliseconds(300);
    private static readonly LabOptions Path = new() { IdleTimeout = TimeSpan.FromSeconds(1200), Workers = 0 };
    private static readonly AgentOptions Agent = new() { Keepalive = false, Recycle = true, WorkersExecutable = null, IdleTimeout = "measure", DeadAfter = null };

    public static async Task<bool> RunAsync()
    {
        var rows = new List<string> { "| router away for | its table | connections | median, s | p99, s | most, s | goal |", "|---|---|---|---|---|---|---|" };
        var good = true;
        foreach (var seconds in new[] { 2, 10, 30, 60, 120 })
        {
            good &= await CaseAsync(rows, TimeSpan.FromSeconds(seconds), withTable: false, 3, 6);
        }

        foreach (var seconds in new[] { 10, 60 })
        {
            good &= await CaseAsync(rows, TimeSpan.FromSeconds(seconds), withTable: true, 0.5, 0.5);
        }

        rows.AddRange(
        [
            "",
            string.Create(
                CultureInfo.InvariantCulture,
                $"From when the path is up to the answer or the error, seen by the clients: in each trial {Clients} that had rested for {Rest.TotalSeconds:0} s and {Clients} that were busy."),
            string.Create(CultureInfo.InvariantCulture, $"{Labs} labs side by side, {TrialsPerLab} trials in each; keepalive = off, nothing known of the path. {GiveUp.TotalSeconds:0} s means: not freed by then."),
        ]);
        Report.Write("Release after the router was away", "make bench TARGET=away", rows);
        return good;
    }

    private static async Task<bool> CaseAsync(List<string> rows, TimeSpan away, bool withTable, double median, double p99)
    {
        var released = await TrialsAsync(away, withTable);
        var kept = released.Median <= median && released.Quantile(0.99) <= p99;
        rows.Add(string.Create(
            CultureInfo.InvariantCulture,
            $"| {away.TotalSeconds:0} s | {(withTable ? "kept" : "lost")} | {released.Runs} | {released.Median:0.00} | {released.Quantile(0.99):0.00} | {released.Quantile(1):0.00} | ≤ {median} s, p99 ≤ {p99} s{(kept ? "" : ", missed")} |"));
        Console.WriteLine(rows[^1]);
        return kept;
    }

    /// <summary>Seconds from when the path is up to the end of each call, over <see cref="Labs"/> × <see cref="TrialsPerLab"/> trials.</summary>
    /// <param name="away">How long the router is away.</param>
    /// <param name="withTable">It comes back with its table.</param>
    /// <param name="withAgent">False: the kernel alone.</param>
    public static async Task<Measured> TrialsAsync(TimeSpan away, bool withTable, bool withAgent = true) =>
        new((await Task.WhenAll(Enumerable.Range(0, Labs).Select(_ => LabAsync(away, withTable, withAgent)))).SelectMany(t => t));

    /// <summary>Seconds from the loss of the table to the end of each call of connections in full use.</summary>
    /// <param name="connections">How many there are.</param>
    public static async Task<Measured> BusyTrialsAsync(int connections) =>
        new((await Task.WhenAll(Enumerable.Range(0, Labs).Select(_ => BusyLabAsync(connections)))).SelectMany(t => t));

    private static async Task<List<double>> BusyLabAsync(int connections)
    {
        await using var lab = await TestLab.StartAsync(Path);
        await lab.StartAgentAsync(Agent);
        var seconds = new List<double>();
        for (var trial = 0; trial < TrialsPerLab; trial++)
        {
            var busy = await DatabaseClients.BusyAsync(lab, connections, BusyEvery);
            await Task.Delay(Rest + TimeSpan.FromMilliseconds(Random.Shared.Next(1000)));
            var lost = DatabaseClients.Now;
            await lab.Router.ForgetAsync();
            seconds.AddRange(await ReleasesAsync(busy, lost, connections));
            busy.Process.Stop(Signal.Kill);
        }

        return seconds;
    }

    private static async Task<List<double>> LabAsync(TimeSpan away, bool withTable, bool withAgent)
    {
        await using var lab = await TestLab.StartAsync(Path);
        if (withAgent)
        {
            await lab.StartAgentAsync(Agent);
        }

        var seconds = new List<double>();
        for (var trial = 0; trial < TrialsPerLab; trial++)
        {
            var rested = await DatabaseClients.RestingAsync(lab, Clients);
            var busy = await DatabaseClients.BusyAsync(lab, Clients, BusyEvery);
            await Task.Delay(Rest + TimeSpan.FromMilliseconds(Random.Shared.Next(1000)));
            await lab.Router.GoAwayAsync();
            rested.Use();
            await Task.Delay(away);
            var up = await lab.Router.ComeBackAsync(withTable);
            seconds.AddRange((await Task.WhenAll(ReleasesAsync(rested, up, Clients), ReleasesAsync(busy, up, Clients))).SelectMany(s => s));
            rested.Process.Stop(Signal.Kill);
            busy.Process.Stop(Signal.Kill);
        }

        return seconds;
    }

    private static async Task<IEnumerable<double>> ReleasesAsync(DatabaseClients clients, TimeSpan up, int count)
    {
        try
        {
            return (await clients.AllEndAsync(up, GiveUp)).Select(use => (use.Ended - up).TotalSeconds);
        }
        catch (TimeoutException)
        {
            var ended = clients.Uses.Where(use => use.Ended > up).DistinctBy(use => use.Number).Select(use => (use.Ended - up).TotalSeconds).ToList();
            return ended.Concat(Enumerable.Repeat(GiveUp.TotalSeconds, count - ended.Count));
        }
    }
}
