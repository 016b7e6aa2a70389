using System.Globalization;
using System.Text.RegularExpressions;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>A full scan of the agent against the floor, ss and node-exporter, at growing numbers of sockets.</summary>
internal static partial class SweepBenchmark
{
    private const double RatioBudget = 1.3;
    private const double ListingBudget = 20;

    private static readonly int[] Sizes = Asked.Sockets(1_000, 10_000, 100_000, 200_000);

    private const int ExporterPort = 9100;

    public static async Task<bool> RunAsync()
    {
        var within = true;
        var rows = new List<string>
        {
            "| sockets | floor, ms | noise | agent ÷ floor | ss -tin ÷ agent | ss -tinp ÷ agent | node-exporter tcpstat ÷ agent | allocated per connection |",
            "|---|---|---|---|---|---|---|---|",
        };
        foreach (var size in Sizes)
        {
            await using var field = await Field.CreateAsync();
            await field.OpenAsync(size);
            var (row, isWithin) = await MeasureAsync(field, size);
            within &= isWithin;
            rows.Add(row);
            Console.WriteLine(rows[^1]);
        }

        rows.AddRange(
        [
            "",
            "The agent's scan is everything that one tick does: the dump with TCP_INFO of every watched connection, tracking,",
            "owners, judging, remedies. The floor is a C program that sends the same request and keeps nothing. ss gets the same",
            "filter; tcpstat reads all sockets of the namespace, without TCP_INFO.",
        ]);
        Report.Write("Sweep", "make bench TARGET=sweep", rows);
        await FlatAsync();
        return within;
    }

    /// <summary>Ratio of the agent's scan to the floor, measured alternately.</summary>
    public static async Task<Measured> AgainstFloorAsync(Field field, int rounds)
    {
        using var agent = await StartAgentAsync(field);
        using var floor = Dialogue.Start(field.Worker, await Programs.PathAsync("floor"), field.Filter);
        await WarmUpAsync(agent);
        var ratios = new List<double>();
        for (var round = 0; round < rounds; round++)
        {
            var bottom = (await floor.AskAsync())[1];
            ratios.Add((double)(await agent.AskAsync())[0] / bottom);
        }

        return new Measured(ratios);
    }

    internal static Task<Dialogue> StartAgentAsync(Field field) => Task.FromResult(Dialogue.Start(
        field.Worker, Environment.ProcessPath!, "scan", field.ServerNetwork, Field.WatchedPort.ToString(CultureInfo.InvariantCulture), Directory.CreateDirectory(Path.Combine(field.Lab.Directory, "scan")).FullName));

    /// <summary>Scans until all owners are found, all keepalives set and the code is compiled for good.</summary>
    internal static async Task WarmUpAsync(Dialogue agent)
    {
        for (var scan = 0; scan < 50; scan++)
        {
            await agent.AskAsync();
            await Task.Delay(20);
        }
    }

    private static async Task<(string Row, bool IsWithinBudget)> MeasureAsync(Field field, int size)
    {
        using var agent = await StartAgentAsync(field);
        using var floor = Dialogue.Start(field.Worker, await Programs.PathAsync("floor"), field.Filter);
        using var exporter = await StartExporterAsync(field);
        await WarmUpAsync(agent);
        var rounds = size >= 100_000 ? 15 : 41;
        var everySs = size >= 100_000 ? 5 : 8;
        var (bottoms, ratios, ss, ssp, tcpstat, allocated) = (new List<double>(), new List<double>(), new List<double>(), new List<double>(), new List<double>(), new List<double>());
        var filter = $"dst {field.ServerNetwork} dport = :{Field.WatchedPort}";
        for (var round = 0; round < rounds; round++)
        {
            var bottom = await floor.AskAsync();
            var scan = await agent.AskAsync();
            if (bottom[0] != size || scan[3] != size)
            {
                throw new InvalidOperationException($"{size} sockets were made, the floor saw {bottom[0]} and the agent {scan[3]}");
            }

            bottoms.Add(bottom[1] / 1e6);
            ratios.Add((double)scan[0] / bottom[1]);
            allocated.Add((double)scan[2] / size);
            if (round % everySs == 0)
            {
                ss.Add((await field.TimeAsync($"ss -Htin '{filter}' > /dev/null")).TotalNanoseconds / scan[0]);
                ssp.Add((await field.TimeAsync($"ss -Htinp '{filter}' > /dev/null")).TotalNanoseconds / scan[0]);
                tcpstat.Add(await ScrapeAsync(field) * 1e9 / scan[0]);
            }
        }

        var noise = new Measured(bottoms);
        var row = string.Create(
            CultureInfo.InvariantCulture,
            $"| {size:#,0} | {noise.Median:0.0} | {(noise.Quantile(0.75) - noise.Quantile(0.25)) / noise.Median:P0} | {new Measured(ratios).Text()} | {new Measured(ss).Text("0.0")} | {new Measured(ssp).Text("0.0")} | {new Measured(tcpstat).Text("0.0")} | {new Measured(allocated).Median:0.#} B |");
        return (row, new Measured(ratios).Median <= RatioBudget && new Measured(ssp).Median >= ListingBudget);
    }

    /// <summary>1,000 watched connections among more and more that are not.</summary>
    private static async Task FlatAsync()
    {
        const int watched = 1_000;
        var rows = new List<string> { "| sockets | of them watched | floor, ms | agent ÷ floor |", "|---|---|---|---|" };
        foreach (var size in Sizes.Where(size => size > watched))
        {
            await using var field = await Field.CreateAsync();
            await field.OpenAsync(watched);
            await field.OpenAsync(size - watched, watched: false);
            using var agent = await StartAgentAsync(field);
            using var floor = Dialogue.Start(field.Worker, await Programs.PathAsync("floor"), field.Filter);
            await WarmUpAsync(agent);
            var (bottoms, ratios) = (new List<double>(), new List<double>());
            for (var round = 0; round < 41; round++)
            {
                var bottom = await floor.AskAsync();
                bottoms.Add(bottom[1] / 1e6);
                ratios.Add((double)(await agent.AskAsync())[0] / bottom[1]);
            }

            rows.Add(string.Create(CultureInfo.InvariantCulture, $"| {size:#,0} | {watched:#,0} | {new Measured(bottoms).Text()} | {new Measured(ratios).Text()} |"));
            Console.WriteLine(rows[^1]);
        }

        rows.AddRange(["", "The kernel filters; what grows is its walk over the table of sockets, for the floor and for the agent alike."]);
        Report.Write("Sockets not watched", "make bench TARGET=sweep", rows);
    }

    private static async Task<ChildProcess> StartExporterAsync(Field field)
    {
        var exporter = ChildProcess.Start(new ChildOptions
        {
            Name = "node-exporter",
            CommandLine =
            [
                "prometheus-node-exporter", "--collector.disable-defaults", "--collector.tcpstat",
                string.Create(CultureInfo.InvariantCulture, $"--web.listen-address=127.0.0.1:{ExporterPort}"),
            ],
            Namespace = field.Worker.Name,
            Directory = field.Lab.Directory,
        });
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                await ScrapeAsync(field);
                return exporter;
            }
            catch (HttpRequestException) when (attempt < 100)
            {
                await Task.Delay(50);
            }
        }
    }

    /// <summary>Seconds that node-exporter says its tcpstat collector took.</summary>
    private static async Task<double> ScrapeAsync(Field field)
    {
        using var client = field.Worker.HttpClient();
        var page = await client.GetStringAsync(new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{ExporterPort}/metrics")));
        var match = Duration().Match(page);
        return match.Success ? double.Parse(match.Groups["seconds"].ValueSpan, CultureInfo.InvariantCulture) : throw new InvalidOperationException("node-exporter does not tell how long tcpstat took");
    }

    [GeneratedRegex("""^node_scrape_collector_duration_seconds\{collector="tcpstat"\} (?<seconds>\S+)$""", RegexOptions.Multiline | RegexOptions.CultureInvariant, 1000)]
    private static partial Regex Duration();
}
