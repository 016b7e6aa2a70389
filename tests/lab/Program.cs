using Sidecar.Lab;
using Sidecar.Lab.Demo;

static int Number(string text) => int.Parse(text, System.Globalization.CultureInfo.InvariantCulture);

try
{
    return args switch
    {
        ["demo"] => await Demonstration.RunAsync(),
        ["up"] => await LabByHand.RunAsync(),
        ["soak", var minutes] => await Soak.RunAsync(TimeSpan.FromMinutes(Number(minutes)), seed: 1, Console.Out) ? 0 : 1,
        ["soak", var minutes, var seed] => await Soak.RunAsync(TimeSpan.FromMinutes(Number(minutes)), Number(seed), Console.Out) ? 0 : 1,
        ["reap"] => LabByHand.Reap(),
        ["npgsql-idlers", var dsn, var clients, var periods, var gap] => await NpgsqlIdlers.RunAsync(dsn, Number(clients), Number(periods), TimeSpan.FromSeconds(Number(gap))),
        _ => LabByHand.Usage(),
    };
}
catch (Exception e) when (e is InvalidOperationException or CommandFailedException or FileNotFoundException or TimeoutException)
{
    Console.Error.WriteLine($"sidecar-lab: {e.Message}");
    return 1;
}
