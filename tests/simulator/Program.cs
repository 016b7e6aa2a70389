using System.Diagnostics;
using System.Globalization;
using Sidecar.Simulator;

// simulator [--hours N] [--seed N] [--kind KIND]: worlds from the seed on until so many connection-hours are done.
// simulator --replay SEED [--kind KIND]: one world, told step by step.
// KIND: all of them of one kind (WorldKind); else each seed has its own.
ulong seed = 1;
var hours = 1_000_000.0;
ulong? replay = null;
WorldKind? kind = null;
for (var i = 0; i + 1 < args.Length; i += 2)
{
    switch (args[i])
    {
        case "--hours":
            hours = double.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        case "--seed":
            seed = ulong.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        case "--kind":
            kind = Enum.Parse<WorldKind>(args[i + 1], ignoreCase: true);
            break;
        case "--replay":
            replay = ulong.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        default:
            Console.Error.WriteLine("usage: simulate.sh [--hours N] [--seed N] [--kind KIND] | --replay SEED [--kind KIND]");
            return 2;
    }
}

if (replay is { } one)
{
    var told = new Report();
    new World(one, told, Console.WriteLine, kind).Run();
    told.Write(Console.Out);
    return told.Failed ? 1 : 0;
}

var started = Process.GetCurrentProcess().TotalProcessorTime;
var clock = Stopwatch.StartNew();
var report = Simulation.Run(seed, hours, kind);
report.Write(Console.Out);
Console.WriteLine($"{clock.Elapsed.TotalSeconds:0} s, {(Process.GetCurrentProcess().TotalProcessorTime - started).TotalSeconds:0} s of them processor time");
foreach (var violation in report.Violations.Concat(report.Wrong).GroupBy(violation => violation.Kind).SelectMany(kind => kind.Take(5)))
{
    Console.WriteLine(violation);
}

return report.Failed ? 1 : 0;
